# SPDX-License-Identifier: Apache-2.0
import math

import pytest
import torch
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from torch import nn
from torch.nn import functional as F

from ldae.models import LDAEDecoder
from ldae.models.layers import AdaLNModulation, DiTBlock, TimestepEmbed, init_dit_weights
from ldae.models.layers.dit_block import same_level

DIMS, HEADS, HIDDEN, COND = 24, 3, 48, 24  # condition as wide as the block: DiT's own


def written_out_block(
    block: DiTBlock, x: torch.Tensor, cond: torch.Tensor, allowed: torch.Tensor | None = None
) -> torch.Tensor:
    """adaLN-Zero with nothing but matrix products, for one batch of tokens, with one condition an image or one a token."""
    p = {name: value.double() for name, value in block.named_parameters()}
    x, cond = x.double(), cond.double()
    chunks = (F.silu(cond) @ p['adaLN.1.weight'].T + p['adaLN.1.bias']).split(DIMS, dim=-1)
    shift1, scale1, gate1, shift2, scale2, gate2 = (c if c.dim() == 3 else c[:, None] for c in chunks)

    def norm(v):
        centred = v - v.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    h = norm(x) * (1 + scale1) + shift1
    qkv = h @ p['attn.qkv.weight'].T + p['attn.qkv.bias']
    heads = []
    for head in range(HEADS):
        width = DIMS // HEADS
        q, k, v = (qkv[..., i * DIMS + head * width : i * DIMS + (head + 1) * width] for i in range(3))
        scores = (q @ k.transpose(1, 2) / math.sqrt(width)).exp()
        scores = scores if allowed is None else scores * allowed
        heads.append(scores / scores.sum(-1, keepdim=True) @ v)
    h = torch.cat(heads, dim=-1) @ p['attn.proj.weight'].T + p['attn.proj.bias']
    x = x + gate1 * h
    h = norm(x) * (1 + scale2) + shift2
    h = h @ p['ffn.layers.0.0.weight'].T + p['ffn.layers.0.0.bias']
    h = h * 0.5 * (1 + torch.erf(h / math.sqrt(2)))
    h = h @ p['ffn.layers.1.weight'].T + p['ffn.layers.1.bias']
    return x + gate2 * h


def random_block() -> DiTBlock:
    torch.manual_seed(0)
    block = DiTBlock(DIMS, HEADS, HIDDEN, COND)
    for param in block.parameters():
        nn.init.normal_(param, std=0.3)
    return block


def test_block_agrees_with_adaln_zero_written_out():
    block, x, cond = random_block(), torch.randn(4, 7, DIMS), torch.randn(4, COND)
    expected = written_out_block(block, x, cond)
    torch.testing.assert_close(block(x, cond).double(), expected, atol=1e-5, rtol=1e-5)


def test_a_condition_for_each_token_agrees_with_adaln_zero_written_out():
    block, x, cond = random_block(), torch.randn(4, 7, DIMS), torch.randn(4, 7, COND)
    expected = written_out_block(block, x, cond)
    torch.testing.assert_close(block(x, cond).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('registers', [0, 2])
def test_tokens_of_a_level_attend_as_in_a_loop_over_pairs(registers):
    block, t = random_block(), torch.tensor([[3, 3, 5, 3, 5], [1, 2, 3, 4, 4], [7, 7, 7, 7, 7]])
    count = registers + 5
    x, cond = torch.randn(3, count, DIMS), torch.randn(3, count, COND)
    allowed = torch.zeros(3, count, count, dtype=torch.float64)
    for image in range(3):
        for i in range(count):
            for j in range(count):
                free = min(i, j) < registers
                allowed[image, i, j] = free or t[image, i - registers] == t[image, j - registers]
    expected = written_out_block(block, x, cond, allowed)
    torch.testing.assert_close(block(x, cond, same_level(t, registers)).double(), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(block(x, cond).double(), expected, atol=1e-3)


@pytest.mark.parametrize('num_classes', [None, 3])
def test_equal_levels_of_all_tokens_are_one_level_to_the_bit(num_classes):
    decoder = LDAEDecoder(
        dict(embed_dims=DIMS, num_layers=2, num_heads=HEADS, feedforward_channels=HIDDEN),
        DIMS,
        5,
        True,
        1.0,
        num_classes,
    )
    for param in decoder.parameters():
        nn.init.normal_(param, std=0.3)
    x, t, labels = torch.randn(3, 7, DIMS), torch.tensor([0, 10, 999]), torch.tensor([0, 3, 1]) if num_classes else None
    assert torch.equal(decoder(x, t[:, None].expand(-1, 7), labels), decoder(x, t, labels))
    # A token's prediction follows from its own level too, and from those of the others only by attention.
    other = t[:, None].repeat(1, 7)
    other[:, 3] = 500
    assert not torch.allclose(decoder(x, other, labels)[:, 3], decoder(x, t, labels)[:, 3], atol=1e-2)
    # Images of one level beside one of several, which take the way of a condition for each token.
    beside = t[:, None].repeat(1, 7)
    beside[2, 3] = 500
    torch.testing.assert_close(decoder(x, beside, labels)[:2], decoder(x, t, labels)[:2], rtol=1e-4, atol=1e-4)


def test_one_condition_serves_a_whole_batch():
    block, x, cond = random_block(), torch.randn(4, 7, DIMS), torch.randn(1, COND)
    torch.testing.assert_close(block(x, cond), block(x, cond.expand(4, -1)))


def test_a_block_starts_as_the_identity():
    block, x, cond = random_block(), torch.randn(2, 7, DIMS), torch.randn(2, COND)
    init_dit_weights(block)
    assert torch.equal(block(x, cond), x)


def test_time_embedding_agrees_with_scalar_sinusoids():
    embed, t = TimestepEmbed(8, freq_dims=16), torch.tensor([0, 10, 999])
    angles = [[int(step) * 10000 ** (-i / 8) for i in range(8)] for step in t]
    waves = torch.tensor([[math.cos(a) for a in row] + [math.sin(a) for a in row] for row in angles])
    torch.testing.assert_close(embed(t), embed.mlp(waves), atol=1e-4, rtol=1e-4)


def test_modulation_is_zero_at_the_start():
    modulation = AdaLNModulation(8, 16, 3)
    init_dit_weights(modulation)
    assert all(torch.equal(out, torch.zeros(2, 1, 16)) for out in modulation(torch.randn(2, 8)))


def test_a_fresh_block_with_open_gates_is_mmpretrain_s_vit_block():
    block = DiTBlock(16, 2, 32, cond_dims=4, gate_init=1.0).eval()
    init_dit_weights(block)
    plain = TransformerEncoderLayer(16, 2, 32, norm_cfg=dict(type='LN', eps=1e-6)).eval()
    assert not plain.load_state_dict(block.state_dict(), strict=False).missing_keys[4:]  # weight and bias of two norms
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(block(x, torch.randn(2, 4)), plain(x))
