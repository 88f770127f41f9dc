# SPDX-License-Identifier: Apache-2.0
"""The Transformer block of a Diffusion Transformer: adaLN-Zero (Peebles & Xie, "Scalable Diffusion Models with
Transformers", section 3.2), conditioned on the time step."""

import math
from typing import Annotated

import torch
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from torch import Tensor, bfloat16, nn
from torch.nn import functional as F

from ldae.utils import ConfigError, Range, check_range
from ldae.utils.errors import nearest

#: What describes a stack of blocks.
ARCH_KEYS = ('embed_dims', 'num_layers', 'num_heads', 'feedforward_channels')
#: Width of the condition relative to embed_dims.
GateInit = Annotated[float, Range(0, 1)]
CondRatio = Annotated[float, Range(1e-3, 16)]
NORM_CFG = dict(type='LN', eps=1e-6)
# adaLN supplies scale and shift, so the norms themselves have none.
PLAIN_NORM_CFG = dict(type='LN', eps=1e-6, elementwise_affine=False)


def check_arch(where: str, arch: dict, least_layers: int = 1) -> None:
    """Raise ConfigError unless ``arch`` describes a stack of blocks that can be built."""
    if missing := [key for key in ARCH_KEYS if key not in arch]:
        hint = ''.join(nearest(key, missing, 0.7) for key in arch)
        raise ConfigError(f'{where}.arch lacks {missing}: give all of {list(ARCH_KEYS)}{hint}')
    for key in sorted(set(arch) - set(ARCH_KEYS)):
        raise ConfigError(f'{where}.arch has no {key!r}{nearest(key, ARCH_KEYS, 0.6)}')
    for key in ARCH_KEYS:
        check_range(f'{where}.arch.{key}', arch[key], least_layers if key == 'num_layers' else 1, kind=int)
    dims, heads = arch['embed_dims'], arch['num_heads']
    if dims % 4 or dims % heads:
        # A quarter each for the sine and cosine of row and column.
        raise ConfigError(f'{where}.arch.embed_dims={dims} must be divisible by 4 and by arch.num_heads={heads}')


def check_attend_by_level(where: str, attend_by_level: bool, conditioned: bool) -> None:
    """Raise ConfigError if attention is to go by noise levels that blocks aren't told."""
    if attend_by_level and not conditioned:
        raise ConfigError(
            f'{where}.attend_by_level needs blocks that know their noise level: leave conditioned=False out'
        )


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (B, N, C); shift and scale (B or 1, N or 1, C)."""
    return x * (1 + scale) + shift


class TimestepEmbed(nn.Module):
    """Time steps (...) -> condition (..., cond_dims): sinusoids of ``freq_dims`` frequencies, then a two-layer MLP."""

    def __init__(self, cond_dims: int, freq_dims: int = 256) -> None:
        super().__init__()
        half = freq_dims // 2
        freqs = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
        self.register_buffer('freqs', freqs, persistent=False)
        self.mlp = nn.Sequential(nn.Linear(freq_dims, cond_dims), nn.SiLU(), nn.Linear(cond_dims, cond_dims))

    def forward(self, t: Tensor) -> Tensor:
        angles = t.float()[..., None] * self.freqs
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1))


class LabelEmbed(nn.Embedding):
    """Class labels (B,) -> (B, cond_dims), to be added to the time embedding; without labels, the vector of "no label"
    (1, cond_dims), which is also what stands for a dropped one (DiT's classifier-free guidance)."""

    def __init__(self, num_classes: int, cond_dims: int) -> None:
        super().__init__(num_classes + 1, cond_dims)
        self.no_label = num_classes

    def forward(self, labels: Tensor | None) -> Tensor:
        return self.weight[self.no_label :] if labels is None else super().forward(labels)


def condition(module: nn.Module, t: Tensor, labels: Tensor | None) -> Tensor:
    """Condition (B, cond_dims) of a module with ``time_embed`` and ``label_embed`` at time steps t (B,), or (B, N, cond_dims) at
    those (B, N) of each token; labels (B,) or None."""
    if t.dim() == 2 and t.device.type == 'cpu' and bool((t == t[:, :1]).all()):
        t = t[:, 0]  # the same, to the last bit too, where asking costs no wait for a device
    cond = module.time_embed(t)
    if module.label_embed is None:
        return cond
    label = module.label_embed(labels)
    return cond + (label if cond.dim() == 2 else label.unsqueeze(1))


def same_level(t: Tensor, registers: int = 0) -> Tensor:
    """Whether tokens have the same time step t (B, N), as a mask (B, 1, N, N) of who attends to whom, with registers before
    them, which attend to all and all to them."""
    mask = t.unsqueeze(2) == t.unsqueeze(1)
    return F.pad(mask, (registers, 0, registers, 0), value=True).unsqueeze(1)


class AdaLNModulation(nn.Sequential):
    """Condition (B, cond_dims) or (B, N, cond_dims) -> ``num`` vectors (B, 1 or N, embed_dims), all zero at the start of
    training."""

    def __init__(self, cond_dims: int, embed_dims: int, num: int) -> None:
        super().__init__(nn.SiLU(), nn.Linear(cond_dims, num * embed_dims))
        self.num = num

    def forward(self, cond: Tensor) -> tuple[Tensor, ...]:
        out = super().forward(cond)
        return (out if out.dim() == 3 else out.unsqueeze(1)).chunk(self.num, dim=-1)


class DiTBlock(TransformerEncoderLayer):
    """mmpretrain's ViT block with both norms modulated and both branches gated by a condition of width
    ``cond_dims``. Parameter names are those of the ViT block, plus ``adaLN``. Gates start at ``gate_init``."""

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        feedforward_channels: int,
        cond_dims: int,
        drop_path_rate: float = 0.0,
        gate_init: float = 0.0,
        **kwargs,
    ) -> None:
        kwargs = dict(kwargs, drop_path_rate=drop_path_rate, norm_cfg=PLAIN_NORM_CFG)
        super().__init__(embed_dims, num_heads, feedforward_channels, **kwargs)
        attend_fastest(self.attn)
        self.adaLN, self.gate_init = AdaLNModulation(cond_dims, embed_dims, 6), gate_init

    def forward(self, x: Tensor, cond: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, N, C), cond (B or 1, cond_dims) or (B, N, cond_dims), mask (B, 1, N, N) of who attends to whom, or None for all
        -> (B, N, C)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN(cond)
        hidden = modulate(self.ln1(x), shift1, scale1)
        x = x + gate1 * (self.attn(hidden) if mask is None else attend_where(self.attn, hidden, mask))
        hidden = self.ffn.layers(modulate(self.ln2(x), shift2, scale2))
        return x + gate2 * self.ffn.dropout_layer(hidden)


def init_dit_weights(module: nn.Module) -> None:
    """DiT's initialisation, in one place: Xavier for linear layers and patch embeddings, a small normal for the time
    embedding, zero for all that modulates, so that each block starts as the identity, unless its gates start open."""
    for child in module.modules():
        if isinstance(child, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(child.weight.data.flatten(1))
            nn.init.zeros_(child.bias)
        elif isinstance(child, nn.LayerNorm) and child.elementwise_affine:
            nn.init.ones_(child.weight)
            nn.init.zeros_(child.bias)
    for child in module.modules():
        if isinstance(child, TimestepEmbed):
            nn.init.normal_(child.mlp[0].weight, std=0.02)
            nn.init.normal_(child.mlp[2].weight, std=0.02)
        elif isinstance(child, LabelEmbed):
            nn.init.normal_(child.weight, std=0.02)
        elif isinstance(child, AdaLNModulation):
            nn.init.zeros_(child[1].weight)
        elif isinstance(child, DiTBlock):
            child.adaLN[1].bias.data.view(6, -1)[[2, 5]] = child.gate_init


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


def attend_where(attention: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    """mmpretrain's attention module, which takes no mask, with one: x (B, N, C), mask (B, 1, N, N)."""
    q, k, v = attention.qkv(x).unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return attention.out_drop(attention.proj(x.transpose(1, 2).flatten(2)))


def attend_fastest(attention: nn.Module) -> None:
    """Let an attention module of mmpretrain use :func:`attend`, unless it has a function of its own."""
    if getattr(attention, KERNEL, None) is F.scaled_dot_product_attention:
        setattr(attention, KERNEL, attend)
