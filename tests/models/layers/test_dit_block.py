# SPDX-License-Identifier: Apache-2.0
import math

import torch
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from torch import nn
from torch.nn import functional as F

from ldae.models.layers import AdaLNModulation, DiTBlock, TimestepEmbed, init_dit_weights

DIMS, HEADS, HIDDEN, COND = 24, 3, 48, 24  # condition as wide as the block: DiT's own


def written_out_block(block: DiTBlock, x: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
    """adaLN-Zero with nothing but matrix products, for one batch of tokens."""
    p = {name: value.double() for name, value in block.named_parameters()}
    x, cond = x.double(), cond.double()
    chunks = (F.silu(cond) @ p['adaLN.1.weight'].T + p['adaLN.1.bias']).split(DIMS, dim=-1)
    shift1, scale1, gate1, shift2, scale2, gate2 = (c[:, None] for c in chunks)

    def norm(v):
        centred = v - v.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    h = norm(x) * (1 + scale1) + shift1
    qkv = h @ p['attn.qkv.weight'].T + p['attn.qkv.bias']
    heads = []
    for head in range(HEADS):
        width = DIMS // HEADS
        q, k, v = (qkv[..., i * DIMS + head * width : i * DIMS + (head + 1) * width] for i in range(3))
        heads.append(torch.softmax(q @ k.transpose(1, 2) / math.sqrt(width), dim=-1) @ v)
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
    assert all(torch.equal(out, torch.zeros(2, 16)) for out in modulation(torch.randn(2, 8)))


def test_a_fresh_block_with_open_gates_is_mmpretrain_s_vit_block():
    block = DiTBlock(16, 2, 32, cond_dims=4, gate_init=1.0).eval()
    init_dit_weights(block)
    plain = TransformerEncoderLayer(16, 2, 32, norm_cfg=dict(type='LN', eps=1e-6)).eval()
    assert not plain.load_state_dict(block.state_dict(), strict=False).missing_keys[4:]  # weight and bias of two norms
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(block(x, torch.randn(2, 4)), plain(x))
