# SPDX-License-Identifier: Apache-2.0
"""Attention maps, against a softmax that is written out."""

import numpy as np
import pytest
import timm
import torch
from mmpretrain.models import ResNet, VisionTransformer
from torch import nn

from ldae.evaluation.attention import attention_maps
from ldae.evaluation.features import backbone_of
from ldae.utils import ConfigError

ARCH = dict(embed_dims=24, num_layers=3, num_heads=2, feedforward_channels=48)
IMAGES = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))


def in_eval(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    model.train(False)
    return model


def by_hand(model: nn.Module, attention: nn.Module, images: torch.Tensor) -> np.ndarray:
    """Attention (B, heads, N, N) of one module, in float64: ``exp(q k / sqrt(d))`` over its sum."""
    seen = []
    handle = attention.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    encode = getattr(model, 'extract_feat', None) or getattr(model, 'forward_features', model)
    with torch.no_grad():
        encode(images)
    handle.remove()
    x = seen[0].double().numpy()
    weight, bias = (value.detach().double().numpy() for value in (attention.qkv.weight, attention.qkv.bias))
    q, k, _ = np.split(x @ weight.T + bias, 3, axis=-1)
    maps = []
    for rows_q, rows_k in zip(q, k, strict=True):
        heads = [
            np.exp(a @ b.T / np.sqrt(a.shape[1]))
            for a, b in zip(
                np.split(rows_q, attention.num_heads, 1), np.split(rows_k, attention.num_heads, 1), strict=True
            )
        ]
        maps.append([scores / scores.sum(axis=1, keepdims=True) for scores in heads])
    return np.array(maps)


@pytest.mark.parametrize('block', [1, 3, -2])
def test_the_average_of_all_patches_where_there_is_no_class_token(small_ldae, block):
    layers = backbone_of(small_ldae).layers
    expected = by_hand(small_ldae, layers[block - 1 if block > 0 else block].attn, IMAGES).mean(axis=2)
    maps = attention_maps(small_ldae, IMAGES, block)
    assert maps.dtype == torch.float64
    np.testing.assert_allclose(maps.numpy(), expected, rtol=1e-4)
    np.testing.assert_allclose(maps.sum(dim=2).numpy(), 1, rtol=1e-9)


def test_attention_of_a_tokenizer_is_not_the_encoders(small_ldae, monkeypatch):
    expected, encode = attention_maps(small_ldae, IMAGES, 1), small_ldae.tokenizer.encode

    def with_attention(images):
        x = images.flatten(2)
        nn.functional.scaled_dot_product_attention(x, x, x)
        return encode(images)

    monkeypatch.setattr(small_ldae.tokenizer, 'encode', with_attention)
    assert torch.equal(attention_maps(small_ldae, IMAGES, 1), expected)


@pytest.mark.parametrize('library', ['mmpretrain', 'timm'])
def test_the_class_token_of_other_libraries(library):
    if library == 'timm':
        model = timm.create_model('vit_tiny_patch16_224', img_size=28, patch_size=7, depth=3, in_chans=1)
        blocks = in_eval(model).blocks
    else:
        model = VisionTransformer(arch=ARCH, img_size=28, patch_size=7, patch_cfg=dict(in_channels=1))
        blocks = in_eval(model).layers
    expected = by_hand(model, blocks[1].attn, IMAGES)[:, :, 0, 1:]
    np.testing.assert_allclose(attention_maps(model, IMAGES, 2).numpy(), expected, rtol=1e-4)


def test_networks_without_it_and_blocks_that_are_not_there_are_one_line(small_ldae):
    with pytest.raises(ConfigError, match='ResNet has no attention over all patches'):
        attention_maps(in_eval(ResNet(18, in_channels=1)), IMAGES)
    swin = timm.create_model('swin_tiny_patch4_window7_224', depths=(1, 1), in_chans=1, img_size=56, window_size=7)
    with pytest.raises(ConfigError, match='SwinTransformer has no attention over all patches'):
        attention_maps(in_eval(swin), torch.randn(1, 1, 56, 56))
    with pytest.raises(ConfigError, match='has blocks 1 to 3'):
        attention_maps(small_ldae, IMAGES, 4)
