# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn

from ldae.models import LDAEDecoder
from ldae.utils import ConfigError

ARCH = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)


@pytest.mark.parametrize('conditioned', [True, False])
@pytest.mark.parametrize('in_dims', [32, 16])
def test_shapes_and_gradients_reach_every_parameter(conditioned, in_dims):
    decoder = LDAEDecoder(ARCH, in_dims=in_dims, out_dims=12, conditioned=conditioned)
    for param in decoder.parameters():
        nn.init.normal_(param, std=0.1)
    out = decoder(torch.randn(3, 5, in_dims), torch.tensor([0, 10, 999]))
    assert out.shape == (3, 5, 12)
    out.square().sum().backward()
    assert all(param.grad is not None and param.grad.abs().sum() > 0 for param in decoder.parameters())


def test_a_fresh_decoder_predicts_zero():
    decoder = LDAEDecoder(ARCH, in_dims=32, out_dims=12)
    decoder.init_weights()
    assert torch.equal(decoder(torch.randn(2, 5, 32), torch.tensor([1, 2])), torch.zeros(2, 5, 12))


def test_prediction_depends_on_the_time_step_only_if_conditioned():
    tokens, steps = torch.randn(1, 5, 32), (torch.tensor([0]), torch.tensor([500]))
    for conditioned in (True, False):
        decoder = LDAEDecoder(ARCH, in_dims=32, out_dims=12, conditioned=conditioned)
        for param in decoder.parameters():
            nn.init.normal_(param, std=0.2)
        assert torch.equal(decoder(tokens, steps[0]), decoder(tokens, steps[1])) is not conditioned


def test_an_incomplete_arch_names_what_is_missing():
    with pytest.raises(ConfigError, match=r"lacks \['num_heads', 'feedforward_channels'\]"):
        LDAEDecoder(dict(embed_dims=32, num_layers=2), in_dims=32, out_dims=12)
