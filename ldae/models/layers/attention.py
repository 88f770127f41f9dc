# SPDX-License-Identifier: Apache-2.0
"""Attention by whatever computes it fastest."""

from torch import Tensor, bfloat16, nn
from torch.nn import functional as F

#: Where mmpretrain's attention keeps the function that it calls.
KERNEL = 'scaled_dot_product_attention'
#: Beyond, N x N products need more memory than their speed is worth.
MOST_TOKENS = 576


def attend(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0) -> Tensor:
    """``softmax(q k^T / sqrt(d)) v`` of (B, heads, N, d): torch's fused kernel, or plain products where those are faster,
    in bfloat16 on a CPU: there the fused kernel's backward pass takes twice their time or more."""
    fused = q.dtype != bfloat16 or q.device.type != 'cpu' or dropout_p > 0 or k.shape[-2] > MOST_TOKENS
    if fused:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return scores.softmax(dim=-1) @ v


def attend_fastest(attention: nn.Module) -> None:
    """Let an attention module of mmpretrain use :func:`attend`, unless it has a function of its own."""
    if getattr(attention, KERNEL, None) is F.scaled_dot_product_attention:
        setattr(attention, KERNEL, attend)
