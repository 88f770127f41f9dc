# SPDX-License-Identifier: Apache-2.0
"""Images side by side in one array."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ldae.utils import ConfigError


def check_shown(bands: Sequence[int] | None, channels: int) -> None:
    """Raise ConfigError for bands to be shown that images don't have, or that make no picture."""
    if bands is not None and (len(bands) not in (1, 3) or max(bands) >= channels):
        raise ConfigError(
            f'shown_bands={list(bands)}: name one band or three, of 0 to {channels - 1}, which are what the model sees'
        )


def shown(images: Tensor, bands: Sequence[int] | None = None) -> Tensor:
    """The bands of images (n, C, H, W) that a picture shows: those that are named, else the first three, or the first."""
    count = images.shape[1]
    return images[:, list(bands or (range(3) if count >= 3 else range(1)))]


def tile(images: Tensor, num_columns: int, gap: int = 1, background: int = 255) -> np.ndarray:
    """Images (n, C, H, W) in [0, 255] -> uint8 (H', W', 3), row by row with ``gap`` pixels between them; of other than one or
    three bands, see :func:`shown`."""
    if images.dim() != 4 or not images.shape[1]:
        raise ConfigError(f'tile: images of shape {tuple(images.shape)}: expected (n, C, H, W)')
    images = shown(images)
    n, _, height, width = images.shape
    num_rows = -(-n // num_columns)
    canvas = torch.full((num_rows * (height + gap) - gap, num_columns * (width + gap) - gap, 3), background)
    pixels = images.detach().cpu().float().round().clamp(0, 255).permute(0, 2, 3, 1)
    for i, image in enumerate(pixels):
        top, left = i // num_columns * (height + gap), i % num_columns * (width + gap)
        canvas[top : top + height, left : left + width] = image.to(canvas.dtype)
    return canvas.to(torch.uint8).numpy()


def filters_to_uint8(basis: Tensor, patch_size: int, in_channels: int) -> Tensor:
    """Rows of V (d, C * p * p) as images (d, C, p, p) in [0, 255]: grey is 0, each filter spans its own range."""
    if basis.shape[1] != in_channels * patch_size**2:
        expected = f'{in_channels} x {patch_size} x {patch_size}'
        raise ConfigError(f'filters: rows of length {basis.shape[1]} are not {expected}: check patch_size, in_channels')
    filters = basis.detach().cpu().float().reshape(-1, in_channels, patch_size, patch_size)
    peak = filters.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
    return 127.5 * (1 + filters / peak)


def heat(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (n, h, w) as images (n, 3, H, W) in [0, 255]: each from dark blue, its least, to yellow, its most (cividis)."""
    from matplotlib import colormaps

    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    shares = ((maps - low) / (high - low).clamp(min=1e-12)).unsqueeze(1)
    colours = colormaps['cividis'](interpolate(shares.float(), size).squeeze(1).numpy())[..., :3]
    return 255 * torch.from_numpy(colours).permute(0, 3, 1, 2)
