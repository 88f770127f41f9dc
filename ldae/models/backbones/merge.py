# SPDX-License-Identifier: Apache-2.0
"""At a fixed time step the conditioning is constant: a conditioned encoder is a plain ViT with other weights."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ldae.models.layers import TimestepEmbed


def merge_conditioning(state_dict: dict[str, Tensor], timestep: int, prefix: str = '') -> None:
    """Turn, in place, the conditioned encoder under ``prefix`` into a plain ViT's parameters.

    With (shift, scale, gate) the modulation at ``timestep``, ``norm(x) (1 + scale) + shift`` is a LayerNorm with weight
    ``1 + scale`` and bias ``shift``, and ``gate * (W x + b)`` is a projection with its rows scaled.
    """
    adaln = [key for key in state_dict if key.startswith(prefix + 'layers.') and key.endswith('.adaLN.1.weight')]
    if not adaln:
        return
    cond = _condition(state_dict, timestep, prefix)
    for key in adaln:
        layer = key.removesuffix('adaLN.1.weight')
        weight, bias = state_dict.pop(key).double(), state_dict.pop(layer + 'adaLN.1.bias').double()
        shift1, scale1, gate1, shift2, scale2, gate2 = F.linear(cond, weight, bias).chunk(6)
        for norm, scale, shift in (('ln1', scale1, shift1), ('ln2', scale2, shift2)):
            state_dict[f'{layer}{norm}.weight'] = (1 + scale).float()
            state_dict[f'{layer}{norm}.bias'] = shift.float()
        for proj, gate in (('attn.proj', gate1), ('ffn.layers.1', gate2)):
            for name, factor in (('weight', gate[:, None]), ('bias', gate)):
                value = state_dict[f'{layer}{proj}.{name}']
                state_dict[f'{layer}{proj}.{name}'] = (value.double() * factor).to(value.dtype)


def _condition(state_dict: dict[str, Tensor], timestep: int, prefix: str) -> Tensor:
    """SiLU of the condition (cond_dims,), float64; removes its keys."""
    head = prefix + 'time_embed.'
    state = {key.removeprefix(head): state_dict.pop(key) for key in list(state_dict) if key.startswith(head)}
    cond_dims, freq_dims = state['mlp.0.weight'].shape
    embed = TimestepEmbed(cond_dims, freq_dims)
    embed.load_state_dict(state)
    embed = embed.to(device=state['mlp.0.weight'].device)
    # The angles stay in float32, as in training; what follows them is exact.
    angles = torch.tensor([timestep], device=embed.freqs.device).float()[:, None] * embed.freqs[None]
    cond = embed.mlp.double()(torch.cat([angles.cos(), angles.sin()], dim=-1).double())
    # Transfer knows no labels: the last row of the label embedding stands for none.
    labels = state_dict.pop(prefix + 'label_embed.weight', torch.zeros(1, 1))
    return F.silu(cond[0] + labels[-1].double()).detach()
