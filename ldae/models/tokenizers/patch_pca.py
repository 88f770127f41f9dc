# SPDX-License-Identifier: Apache-2.0
"""Patch-wise PCA, the tokenizer of l-DAE."""

import torch
from mmengine import dist
from torch import Tensor

from ldae.registry import MODELS
from ldae.utils import ConfigError, checked

from .base import load_tokenizer, load_tokenizer_state
from .patch_linear import PatchLinearTokenizer


@MODELS.register_module()
class PatchPCATokenizer(PatchLinearTokenizer):
    """Project each patch on the first d principal components of a large sample of patches (paper, section 4.2).

    ``z = V (x - mean) / scale`` and ``x' = V^T (z * scale) + mean``, with the rows of V (d, D) orthonormal. Raises
    ConfigError for an option out of range or a file of another geometry or ``latent_norm``.

    Args:
        img_size, patch_size, in_channels, latent_dim: See :class:`BaseTokenizer`.
        latent_norm: How latents are scaled, see :class:`PatchLinearTokenizer`.
        full_basis: Keep all D components, as :attr:`full_basis`, not only the first d.
        checkpoint: File written by ``tools/fit_pca.py``; without one the tokenizer must be fitted (training does it).
    """

    needs_fit = True

    @checked
    def __init__(self, *args, full_basis: bool = False, checkpoint: str | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        dim = self.geometry.patch_dim
        self.register_buffer('variances', torch.zeros(dim))
        self.register_buffer('full_basis', torch.zeros(dim, dim) if full_basis else None)
        if checkpoint is not None:
            self._load_file(checkpoint)

    @property
    def explained_variance_ratio(self) -> Tensor:
        """Share of the patches' variance per component (D,), in falling order."""
        return self.variances / self.variances.sum()

    def _take_statistics(self, mean: Tensor, covariance: Tensor) -> None:
        variances, basis = principal_components(covariance)
        for tensor in (mean, variances, basis):
            # The decomposition may differ in the last bit between machines: all ranks take rank 0's.
            dist.broadcast(tensor)
        d = self.latent_dim
        self._check_rank(variances)
        self.components.copy_(basis[:d])
        self.variances.copy_(variances)
        if self.full_basis is not None:
            self.full_basis.copy_(basis)
        self._set_maps(mean, basis[:d], basis[:d], variances[:d])

    def _load_file(self, path: str) -> None:
        state = load_tokenizer_state(path, type(self).__name__)
        if self.full_basis is not None and 'full_basis' not in state:
            raise ConfigError(f'{path} holds no full basis: run tools/fit_pca.py again with full_basis=True')
        # A file is written with the full basis, or without: a tokenizer that wants none leaves it.
        if self.full_basis is None:
            state.pop('full_basis', None)
        load_tokenizer(self, state, path)


def principal_components(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (D,) in falling order and eigenvectors as rows (D, D); each row's largest entry is positive, so that
    two fits agree in sign."""
    values, vectors = torch.linalg.eigh(covariance)
    values, rows = values.flip(0).clamp(min=0), vectors.flip(1).t().contiguous()
    largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))
    return values, rows * torch.where(largest < 0, -1.0, 1.0).to(rows.dtype)
