# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch.nn import functional as F

from ldae.models.layers import DiTBlock, attend, attend_fastest


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.bfloat16, 1e-2), (torch.float32, 0)])
def test_attention_on_a_cpu_is_torchs(dtype, tolerance):
    q, k, v = torch.randn(3, 2, 4, 100, 16).to(dtype)
    expected = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(attend(q, k, v), expected, rtol=tolerance, atol=tolerance)
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    assert (attend(q, k, v) - exact).abs().mean() < 2 * (expected - exact).abs().mean()


def test_blocks_take_the_faster_way_and_an_attention_with_a_function_of_its_own_keeps_it():
    block = DiTBlock(16, 2, 32, 4)
    assert block.attn.scaled_dot_product_attention is attend
    block.attn.scaled_dot_product_attention = len
    attend_fastest(block.attn)
    assert block.attn.scaled_dot_product_attention is len
