# SPDX-License-Identifier: Apache-2.0
"""The encoder as a backbone of detectors and segmenters: maps of several levels, at any size."""

import pytest
import torch

from ldae.models import LDAEViT

ARCH = dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64)


def encoder(**options) -> LDAEViT:
    """The same weights, which all matter, whatever the output."""
    torch.manual_seed(0)
    model = LDAEViT(ARCH, img_size=32, patch_size=8, conditioned=False, **options).eval()
    for name, param in model.named_parameters():
        if name != 'pos_embed' and not name.startswith('ln2'):  # the norm of fine-tuning, which maps don't pass
            torch.nn.init.normal_(param, std=0.2)
    return model


@pytest.mark.parametrize('size', [(32, 32), (48, 64), (80, 24), (8, 40)])
@pytest.mark.parametrize('indices', [[0, 1, 2, 3], [1, 3], [-1]])
def test_maps_are_the_tokens_in_their_places(size, indices):
    images = torch.randn(2, 3, *size)
    rows, cols = size[0] // 8, size[1] // 8
    maps = encoder(out_type='featmap', out_indices=indices)(images)
    tokens = encoder(out_type='raw', out_indices=indices)(images)
    assert [level.shape for level in maps] == [(2, 32, rows, cols)] * len(indices)
    for level, raw in zip(maps, tokens, strict=True):
        for row in range(rows):
            assert torch.equal(level[:, :, row], raw[:, row * cols : (row + 1) * cols].transpose(1, 2))


def test_each_level_is_the_last_of_a_shorter_encoder():
    images = torch.randn(1, 3, 24, 40)
    model = encoder(out_type='featmap', out_indices=[0, 1, 2, 3])
    maps = model(images)
    for depth in range(4):
        short = LDAEViT(dict(ARCH, num_layers=depth + 1), 32, 8, conditioned=False, out_type='featmap').eval()
        short.load_state_dict(model.state_dict(), strict=False)
        assert torch.equal(short(images)[-1], maps[depth])


def test_a_patch_of_the_image_is_where_its_token_is():
    model = encoder(out_type='featmap')
    for layer in model.layers:  # no token sees another
        layer.attn.proj.weight.data.zero_()
    images = torch.randn(1, 3, 32, 64)
    changed = images.clone()
    changed[:, :, 8:16, 40:48] += 1
    moved = (model(images)[-1] - model(changed)[-1]).abs().sum(dim=1)[0] > 0
    assert moved.nonzero().tolist() == [[1, 5]]


def test_gradients_reach_all_but_what_a_level_does_not_use():
    model = encoder(out_type='featmap', out_indices=[1])
    model.train()(torch.randn(1, 3, 32, 48))[0].sum().backward()
    used = {name for name, param in model.named_parameters() if param.grad is not None}
    blocks = {f'layers.{i}.' for i in range(4) if any(name.startswith(f'layers.{i}.') for name in used)}
    assert blocks == {'layers.0.', 'layers.1.'}
    assert 'patch_embed.projection.weight' in used
