# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn

from ldae.evaluation import block_features
from ldae.evaluation.attention import attention_maps
from ldae.evaluation.features import block_tokens
from ldae.models import LDAEViT

ARCH = dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64)
IMAGES = torch.randn(2, 3, 32, 32)


def encoder(**kwargs) -> LDAEViT:
    torch.manual_seed(0)
    model = LDAEViT(**dict(dict(arch=ARCH, img_size=32, patch_size=8, reg_tokens=4), **kwargs)).eval()
    for param in model.parameters():
        if param.requires_grad:
            nn.init.normal_(param, std=0.2)
    return model


@pytest.mark.parametrize(
    ('out_type', 'shape'), [('raw', (2, 16, 32)), ('avg_featmap', (2, 32)), ('featmap', (2, 32, 4, 4))]
)
def test_outputs_and_averages_are_of_the_patches(out_type, shape):
    raw = encoder()(IMAGES)[-1]
    out = encoder(out_type=out_type)(IMAGES)[-1]
    assert out.shape == shape
    expected = {'raw': raw, 'avg_featmap': raw.mean(1), 'featmap': raw.transpose(1, 2).unflatten(2, (4, 4))}
    torch.testing.assert_close(out, expected[out_type])


def test_registers_are_tokens_in_front_of_the_blocks():
    model, seen = encoder(), []
    model.layers[0].register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    out = model(IMAGES)[-1]
    assert torch.equal(seen[0][:, :4], model.reg_token.expand(2, -1, -1))
    assert torch.equal(model.reg_token, dict(model.named_parameters())['reg_token'])
    x, cond = seen[0], model.time_embed(torch.tensor([model.timestep]))
    for layer in model.layers:
        x = layer(x, cond)
    assert torch.equal(x[:, 4:], out)
    with torch.no_grad():
        model.reg_token.neg_()
    assert not torch.allclose(model(IMAGES)[-1], out, atol=1e-3)


def test_no_registers_add_no_parameter():
    assert 'reg_token' not in encoder(reg_tokens=0).state_dict()


def test_registers_have_the_condition_of_the_noisiest_token():
    model, t = encoder(), torch.tensor([[5] * 15 + [700], [3, 900] * 8])
    conditions = []
    model.layers[0].register_forward_pre_hook(lambda m, inputs: conditions.append(inputs[1]))
    model(IMAGES, t)
    [cond] = conditions
    assert cond.shape == (2, 20, 8)
    torch.testing.assert_close(cond[:, 0], model.time_embed(torch.tensor([700, 900])))
    torch.testing.assert_close(cond[:, 4:], model.time_embed(t))
    one = torch.tensor([10, 500])
    assert torch.equal(model(IMAGES, one[:, None].expand(-1, 16))[-1], model(IMAGES, one)[-1])


def test_they_are_merged_frozen_and_counted_to_the_stem():
    model = encoder()
    plain = LDAEViT(ARCH, img_size=32, patch_size=8, reg_tokens=4, conditioned=False, timestep=10).eval()
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(plain(IMAGES)[-1], model(IMAGES)[-1], rtol=1e-4, atol=1e-4)
    assert not encoder(frozen_stages=1).reg_token.requires_grad
    assert model.get_layer_depth('backbone.reg_token', 'backbone.') == (0, 5)


def test_features_of_blocks_and_attention_are_of_the_patches():
    model, wide = encoder(), encoder(out_indices=(0, 1, 2))
    outs = wide(IMAGES)
    for block, out in enumerate(outs, 1):
        torch.testing.assert_close(block_features(model, IMAGES, [block])[:, 0], out.mean(1))
        torch.testing.assert_close(block_tokens(model, IMAGES, block), out)
    assert attention_maps(model, IMAGES).shape == (2, 2, 16)


def test_they_start_apart():
    model = LDAEViT(ARCH, img_size=32, patch_size=8, reg_tokens=4)
    model.init_weights()
    assert model.reg_token.std().item() == pytest.approx(0.02, rel=0.3)
