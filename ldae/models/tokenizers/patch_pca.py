# SPDX-License-Identifier: Apache-2.0
"""Patch-wise PCA, the tokenizer of l-DAE."""

from collections.abc import Iterable

import torch
from mmengine import dist
from torch import Tensor

from ldae.models.layers import AffinePatchMap, patch_view, patchify, unpatchify
from ldae.registry import MODELS
from ldae.utils import ConfigError, check_choice, full_precision

from .base import BaseTokenizer
from .streaming_covariance import StreamingCovariance

LATENT_NORMS = ('global', 'whiten', 'none')


@MODELS.register_module()
class PatchPCATokenizer(BaseTokenizer):
    """Project each patch on the first d principal components of a large sample of patches (paper, section 4.2).

    ``z = V (x - mean) / scale`` and ``x' = V^T (z * scale) + mean``, with the rows of V (d, D) orthonormal,
    D = in_channels * patch_size ** 2, pixels of a patch in the order (channel, row, column).

    The paper doesn't say how latents get to the unit variance that its noise levels suppose. ``latent_norm`` offers
    ``'global'`` (one scale, the root of the mean variance of the d components; V stays an isometry up to scale),
    ``'whiten'`` (each component to unit variance) and ``'none'``.

    Args:
        img_size, patch_size, in_channels, latent_dim: See :class:`BaseTokenizer`.
        latent_norm: How latents are scaled.
        full_basis: Keep all D components, as :attr:`full_basis`, not only the first d.
        checkpoint: File written by ``tools/fit_pca.py``; without one the tokenizer must be fitted (training does it).

    Raises:
        ConfigError: For an option out of range or a file of another geometry or ``latent_norm``.
    """

    needs_fit = True

    def __init__(
        self,
        img_size: int = 256,
        patch_size: int = 16,
        in_channels: int = 3,
        latent_dim: int = 32,
        latent_norm: str = 'global',
        full_basis: bool = False,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__(img_size, patch_size, in_channels, latent_dim)
        check_choice('tokenizer PatchPCATokenizer: latent_norm', latent_norm, LATENT_NORMS)
        self.latent_norm = latent_norm
        dim = self.geometry.patch_dim
        self.patch_map = AffinePatchMap(latent_dim, dim)
        self.register_buffer('components', torch.zeros(latent_dim, dim))
        self.register_buffer('scale', torch.ones(latent_dim))
        self.register_buffer('variances', torch.zeros(dim))
        self.register_buffer('full_basis', torch.zeros(dim, dim) if full_basis else None)
        # Which normalisation a checkpoint was made with, as a tensor since state dicts hold nothing else.
        self.register_buffer('norm_id', torch.tensor(LATENT_NORMS.index(latent_norm)))
        self.register_buffer('fitted', torch.tensor(0))
        self._known_fitted = False
        if checkpoint is not None:
            self._load_file(checkpoint)

    @property
    def is_fitted(self) -> bool:
        # The buffer is read (a device sync) until it says yes, then never again.
        self._known_fitted = self._known_fitted or (not self.fitted.is_meta and bool(self.fitted))
        return self._known_fitted

    @property
    def basis(self) -> Tensor:
        return self.components

    @property
    def mean(self) -> Tensor:
        """Mean patch (D,)."""
        return self.patch_map.mean

    @property
    def explained_variance_ratio(self) -> Tensor:
        """Share of the patches' variance per component (D,), in falling order."""
        return self.variances / self.variances.sum()

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        self._check_images(images)
        self._check_fitted()
        with full_precision(images.device):
            return self.patch_map.encode(patchify(images.float(), self.patch_size))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        self._check_fitted()
        with full_precision(latents.device):
            return unpatchify(self.patch_map.decode(latents.float()), self.patch_size, self.geometry.grid)

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """One streaming pass over this rank's batches (B, C, H, W); the result is the same on all ranks.

        Raises:
            ConfigError: If the sample has too few patches to span the latent space.
        """
        statistics = None
        for images in batches:
            self._check_images(images)
            patches = patch_view(images.float(), self.patch_size)  # (B, H/p, W/p, C, p, p)
            statistics = statistics or StreamingCovariance(patches.shape[3:], patches.device)
            statistics.update(patches)
        if statistics is None:
            raise ConfigError(
                'the PCA has no images to be fitted on: check the training data, or give num_images'
            )
        mean, covariance, count = statistics.finalize()
        if count <= self.latent_dim:
            raise ConfigError(
                f'{count} patches cannot span latent_dim={self.latent_dim}: fit the PCA on more images'
            )
        variances, basis = principal_components(covariance)
        for tensor in (mean, variances, basis):
            # The decomposition may differ in the last bit between machines: all ranks take rank 0's.
            dist.broadcast(tensor)
        self._set(mean, variances, basis)

    def _set(self, mean: Tensor, variances: Tensor, basis: Tensor) -> None:
        """Fill the buffers from float64 mean (D,), variances (D,) and basis (D, D)."""
        d = self.latent_dim
        if not bool(variances[d - 1] > variances[0] * 1e-10):
            rank = int((variances > variances[0] * 1e-10).sum())
            raise ConfigError(
                f'the patches vary in {rank} directions only, latent_dim={d} is more: lower latent_dim or fit the PCA '
                'on more varied images'
            )
        norms = {'global': variances[:d].mean().sqrt().expand(d), 'whiten': variances[:d].sqrt()}
        scale = norms.get(self.latent_norm, torch.ones_like(variances[:d]))
        components = basis[:d]
        self.components.copy_(components)
        self.scale.copy_(scale)
        self.variances.copy_(variances)
        self.patch_map.encoder.copy_(components / scale[:, None])
        self.patch_map.decoder.copy_(components * scale[:, None])
        self.patch_map.mean.copy_(mean)
        if self.full_basis is not None:
            self.full_basis.copy_(basis)
        self.fitted.fill_(1)
        self._known_fitted = True

    def _check_fitted(self) -> None:
        if not self.is_fitted:
            raise ConfigError(
                'PatchPCATokenizer is not fitted: train with FitTokenizerHook (our configs have it), load a checkpoint '
                "that holds one, or run tools/fit_pca.py and name its file in the tokenizer's `checkpoint`"
            )

    def _load_file(self, path: str) -> None:
        from ldae.engine.fit import load_tokenizer_state

        state = load_tokenizer_state(path)
        if self.full_basis is not None and 'full_basis' not in state:
            raise ConfigError(f'{path} holds no full basis: run tools/fit_pca.py again with full_basis=True')
        # A file is written with the full basis, or without: a tokenizer that wants none leaves it.
        if self.full_basis is None:
            state.pop('full_basis', None)
        self.load_state_dict(state)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        self._check_state(state_dict, prefix)
        self._known_fitted = False
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _check_state(self, state_dict: dict, prefix: str) -> None:
        """Say in one line that a checkpoint holds another tokenizer, before tensor shapes do in many."""
        components, norm_id = state_dict.get(prefix + 'components'), state_dict.get(prefix + 'norm_id')
        if components is not None and components.shape != self.components.shape:
            raise ConfigError(
                f'the checkpoint holds a PCA of (latent_dim, patch pixels) {tuple(components.shape)}, the config asks '
                f'for {tuple(self.components.shape)}: use the config it was made with, or fit a new one'
            )
        if norm_id is not None and int(norm_id) != LATENT_NORMS.index(self.latent_norm):
            raise ConfigError(
                f"the checkpoint's PCA has latent_norm='{LATENT_NORMS[int(norm_id)]}', the config says "
                f"'{self.latent_norm}': set the tokenizer's latent_norm to match, or fit a new one"
            )


def principal_components(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (D,) in falling order and eigenvectors as rows (D, D); each row's largest entry is positive, so that
    two fits agree in sign."""
    values, vectors = torch.linalg.eigh(covariance)
    values, rows = values.flip(0).clamp(min=0), vectors.flip(1).t().contiguous()
    largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))
    return values, rows * torch.where(largest < 0, -1.0, 1.0).to(rows.dtype)
