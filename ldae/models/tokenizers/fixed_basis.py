# SPDX-License-Identifier: Apache-2.0
"""Tokenizers whose directions are given beforehand; only the mean and the scale come from data."""

from abc import abstractmethod

import torch
from torch import Tensor

from ldae.registry import MODELS
from ldae.utils import NaturalInt, checked

from .base import Geometry
from .patch_linear import PatchLinearTokenizer


class FixedBasisTokenizer(PatchLinearTokenizer):
    """``z = V (x - mean) / scale`` with orthonormal rows V (d, D) that no data are needed for.

    With ``latent_norm='none'`` mean and scale are 0 and 1, and there is nothing to fit.

    Args:
        img_size, patch_size, in_channels, latent_dim: See :class:`BaseTokenizer`.
        latent_norm: How latents are scaled, see :class:`PatchLinearTokenizer`.
        checkpoint: File written by ``tools/fit_pca.py``; without one the tokenizer must be fitted (training does it).
    """

    needs_fit = True

    def __init__(self, *args, checkpoint: str | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer('variances', torch.zeros(self.latent_dim))
        self.register_buffer('total_variance', torch.zeros(()))
        self.needs_fit = self.latent_norm != 'none'
        rows = self._rows(self.geometry)
        self.components.copy_(rows)
        if not self.needs_fit:
            self._set_maps(torch.zeros(rows.shape[1]), rows, rows, torch.ones(self.latent_dim))
        if checkpoint is not None:
            self._load_file(checkpoint)

    @staticmethod
    @abstractmethod
    def _rows(geometry: Geometry) -> Tensor:
        """Orthonormal rows (d, D), float64."""

    @property
    def explained_variance_ratio(self) -> Tensor:
        """Share of the patches' variance in each dimension (d,)."""
        return self.variances / self.total_variance

    def _take_statistics(self, mean: Tensor, covariance: Tensor) -> None:
        rows = self.components.double()
        variances = ((rows @ covariance) * rows).sum(dim=1)
        self._check_rank(variances)
        self.variances.copy_(variances)
        self.total_variance.copy_(covariance.trace())
        self._set_maps(mean, rows, rows, variances)


@MODELS.register_module()
class DCTTokenizer(FixedBasisTokenizer):
    """Keep the d lowest frequencies of the patch's 2-D discrete cosine transform, as JPEG does.

    ``z = V (x - mean) / scale``, the rows of V being orthonormal DCT-II functions per channel, in zig-zag order of
    frequency, and in order of channels within a frequency."""

    @staticmethod
    def _rows(geometry: Geometry) -> Tensor:
        p, channels, d = geometry.patch_size, geometry.in_channels, geometry.latent_dim
        waves = cosines(p)  # (frequency, pixel)
        frequencies = zigzag(p)[: -(-d // channels)]
        images = torch.stack([torch.outer(waves[u], waves[v]) for u, v in frequencies])  # (n, p, p)
        rows = torch.zeros(len(images), channels, channels, p, p, dtype=torch.float64)
        for c in range(channels):
            rows[:, c, c] = images
        return rows.flatten(2).flatten(0, 1)[:d]


@MODELS.register_module()
class RandomProjectionTokenizer(FixedBasisTokenizer):
    """Project each patch on d random orthonormal directions: ``z = V (x - mean) / scale``.

    Args:
        img_size, patch_size, in_channels, latent_dim, latent_norm, checkpoint: See :class:`FixedBasisTokenizer`.
        seed: Of the directions, which are the same on every machine and device.
    """

    @checked
    def __init__(self, *args, seed: NaturalInt = 0, **kwargs) -> None:
        self.seed = seed
        super().__init__(*args, **kwargs)

    def _rows(self, geometry: Geometry) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        square = torch.randn(
            geometry.patch_dim, geometry.latent_dim, generator=generator, dtype=torch.float64, device='cpu'
        )
        return torch.linalg.qr(square).Q.t()


def cosines(size: int) -> Tensor:
    """The orthonormal DCT-II as a matrix (frequency, position), float64."""
    frequency, position = torch.arange(size, dtype=torch.float64), torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(torch.pi / size * torch.outer(frequency, position + 0.5))
    matrix[0] *= 0.5**0.5
    return matrix * (2 / size) ** 0.5


def zigzag(size: int) -> list[tuple[int, int]]:
    """All (row, column) of a square from low to high frequency, diagonals in turn up and down."""
    cells = [(u, v) for u in range(size) for v in range(size)]
    return sorted(cells, key=lambda uv: (sum(uv), uv[0] if sum(uv) % 2 else uv[1]))
