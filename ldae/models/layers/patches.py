# SPDX-License-Identifier: Apache-2.0
"""Patches of images as rows, and affine maps of them. The order of pixels in a patch is (channel, row, column), that of
a flattened convolution weight."""

import torch
from mmpretrain.models.utils import build_2d_sincos_position_embedding
from torch import Tensor, nn
from torch.nn import functional as F


def patch_view(images: Tensor, patch_size: int) -> Tensor:
    """(B, C, H, W) -> (B, H / p, W / p, C, p, p), without a copy."""
    b, c, height, width = images.shape
    p = patch_size
    return images.reshape(b, c, height // p, p, width // p, p).permute(0, 2, 4, 1, 3, 5)


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """(B, C, H, W) -> (B, N, C * p * p) with N = (H / p) * (W / p), patches in row-major order."""
    return patch_view(images, patch_size).flatten(3).flatten(1, 2)


def sincos_positions(grid: tuple[int, int], embed_dims: int) -> Tensor:
    """Fixed positions (1, N, C) of a grid (rows, columns) of tokens that stand row by row.

    mmpretrain numbers a grid of (height, width) column by column, which is the same for squares only."""
    return build_2d_sincos_position_embedding(grid[::-1], embed_dims)


def unpatchify(patches: Tensor, patch_size: int, grid: tuple[int, int]) -> Tensor:
    """(B, N, C * p * p) -> (B, C, H, W), the inverse of :func:`patchify`; ``grid`` is (H / p, W / p)."""
    b, _, dim = patches.shape
    p, (rows, cols) = patch_size, grid
    x = patches.reshape(b, rows, cols, dim // (p * p), p, p)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(b, -1, rows * p, cols * p)


class AffinePatchMap(nn.Module):
    """A linear tokenizer's two maps of a patch x: ``z = E (x - m)`` and ``x' = D^T z + m``.

    Its tensors are buffers: initialisers of ``nn.Linear`` don't touch them and they travel in the checkpoint. The same
    object sits in the tokenizer, which fits it, and in the encoder's patch embedding, which folds it into its weight.

    Shapes: ``encoder`` E (d, D), ``decoder`` D (d, D), ``mean`` m (D,), with D = C * p * p."""

    def __init__(self, latent_dim: int, patch_dim: int) -> None:
        super().__init__()
        self.register_buffer('encoder', torch.zeros(latent_dim, patch_dim))
        self.register_buffer('decoder', torch.zeros(latent_dim, patch_dim))
        self.register_buffer('mean', torch.zeros(patch_dim))

    def encode(self, patches: Tensor) -> Tensor:
        """(..., D) -> (..., d)."""
        return F.linear(patches, self.encoder, -(self.encoder @ self.mean))

    def decode(self, latents: Tensor) -> Tensor:
        """(..., d) -> (..., D)."""
        return F.linear(latents, self.decoder.t(), self.mean)


def token_index(visible: Tensor, channels: int) -> Tensor:
    """Token numbers (B, M) as an index (B, M, channels) for ``gather`` and ``scatter``."""
    return visible.unsqueeze(-1).expand(-1, -1, channels)
