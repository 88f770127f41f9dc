# SPDX-License-Identifier: Apache-2.0
"""Whether a model and its batch fit into the memory, told before any data are read."""

import math
import os
from pathlib import Path

import torch
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from torch import nn

from ldae.utils import ConfigError

#: Bytes of a trained parameter in float32: itself, its gradient and Adam's two moments.
PARAMETER = 16
#: Values that a block keeps for the backward pass, in widths of a token: inputs and outputs of two norms, queries, keys, values,
#: attention and its projection, and the hidden layer before and after its activation, four times as wide.
KEPT = 16
CGROUP = Path('/sys/fs/cgroup/memory.max')


def memory(device: str) -> int:
    """Bytes that this device has, or that its container may have."""
    if device == 'cuda':
        return torch.cuda.mem_get_info()[1]
    limit = CGROUP.read_text().strip() if CGROUP.is_file() else ''
    total = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return min(total, int(limit)) if limit.isdigit() else total


def needed(model: nn.Module, half: bool = False) -> tuple[int, int]:
    """Bytes that training a model with an encoder takes at least: without images, and for each of them.

    Args:
        half: What is kept for the backward pass is in half precision.
    """
    fixed = sum(p.numel() * (PARAMETER if p.requires_grad else 4) for p in model.parameters())
    tokens = math.prod(model.backbone.patch_resolution)
    visible = getattr(getattr(model, 'masking', None), 'num_visible', tokens) / tokens
    visible *= 1 - (getattr(model.backbone, 'mask_ratio', None) or 0)  # of MAE
    kept = 0.0
    for name, block in model.named_modules():
        if isinstance(block, TransformerEncoderLayer) and any(p.requires_grad for p in block.parameters()):
            kept += block.embed_dims * (visible if name.startswith('backbone.') else 1)
    return fixed, int(tokens * kept * KEPT * (2 if half else 4))


def check_memory(model: nn.Module, batch: int, device: str, half: bool = False) -> None:
    """Raise ConfigError, with a batch that would fit, if training takes more memory than there is."""
    if not hasattr(getattr(model, 'backbone', None), 'patch_resolution'):
        return
    (fixed, image), have = needed(model, half), memory(device)
    if fixed + batch * image <= have:
        return
    fits = (have - fixed) // max(1, image)
    advice = f'--batch-size {2 ** (fits.bit_length() - 1)}' if fits > 0 else '--model small, or --scale auto'
    raise ConfigError(
        f'{sum(p.numel() for p in model.parameters()) / 1e6:.0f} million parameters and batches of {batch} images take '
        f'{(fixed + batch * image) / 1e9:.1f} GB or more to train, and this {device} has {have / 1e9:.1f} GB: add {advice}'
    )
