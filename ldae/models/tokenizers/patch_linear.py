# SPDX-License-Identifier: Apache-2.0
"""Tokenizers that are linear per patch."""

import math
from abc import abstractmethod
from collections.abc import Iterable
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from ldae.models.layers import AffinePatchMap, patch_view, patchify, unpatchify
from ldae.registry import MODELS
from ldae.utils import Choice, ConfigError, checked
from ldae.utils.device import full_precision
from ldae.utils.sizes import Size, as_size, height_width

from .base import BaseTokenizer, load_tokenizer, load_tokenizer_state, read_tokenizer
from .streaming_covariance import PixelCovariance, StreamingCovariance

LATENT_NORMS = ('global', 'whiten', 'none')
LatentNorm = Annotated[str, Choice(LATENT_NORMS)]


class PixelNormalization(NamedTuple):
    """``(x - mean) / std`` of pixels x in 0 to 255, each (C,): what a data preprocessor does."""

    mean: Tensor
    std: Tensor

    def of_statistics(self, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (D,) and covariance (D, D) of patches in the order (channel, row, column), after normalisation."""
        shift, scale = (value.to(mean).flatten().repeat_interleave(len(mean) // value.numel()) for value in self)
        return (mean - shift) / scale, covariance / torch.outer(scale, scale)


class PatchLinearTokenizer(BaseTokenizer):
    """``z = E (x - mean)`` and ``x' = D^T z + mean`` for each patch x of D_x = in_channels * patch_size ** 2 pixels, in the
    order (channel, row, column).

    The paper doesn't say how latents get to the unit variance that its noise levels suppose. ``latent_norm`` offers
    ``'global'`` (one scale, the root of the mean variance of the d dimensions; an orthonormal basis stays an isometry up
    to scale), ``'whiten'`` (each dimension to unit variance) and ``'none'``.

    A subclass says in :meth:`_take_statistics` what follows from the mean and covariance of a sample of patches, and
    hands maps and variances to :meth:`_set_maps`. Raises ConfigError for an option out of range, or a checkpoint of
    another geometry or ``latent_norm``. The other options are those of :class:`BaseTokenizer`."""

    @checked
    def __init__(
        self,
        img_size: Size = 256,
        patch_size: int = 16,
        in_channels: int = 3,
        latent_dim: int = 32,
        latent_norm: LatentNorm = 'global',
    ) -> None:
        super().__init__(img_size, patch_size, in_channels, latent_dim)
        self.latent_norm = latent_norm
        dim = self.geometry.patch_dim
        self.patch_map = AffinePatchMap(latent_dim, dim)
        self.register_buffer('components', torch.zeros(latent_dim, dim))
        self.register_buffer('scale', torch.ones(latent_dim))
        # Which normalisation a checkpoint was made with, as a tensor since state dicts hold nothing else.
        self.register_buffer('norm_id', torch.tensor(LATENT_NORMS.index(latent_norm)))
        self.register_buffer('fitted', torch.tensor(0))

    @property
    def basis(self) -> Tensor:
        return self.components

    @property
    def mean(self) -> Tensor:
        """Mean patch (D,)."""
        return self.patch_map.mean

    @property
    def kept_variance(self) -> float | None:
        share = float(self.explained_variance_ratio[: self.latent_dim].sum())
        return None if math.isnan(share) else share  # of a basis that has seen no patches

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
    def fit(self, batches: Iterable[Tensor], normalization: PixelNormalization | None = None) -> None:
        """One streaming pass over this rank's batches (B, C, H, W); the result is the same on all ranks. Raises
        ConfigError if the sample has too few patches to span the latent space, or values that aren't finite.

        Args:
            batches: Normalised pixels; or uint8 ones, whose statistics are exact, several times faster, and normalised
                afterwards.
            normalization: What training does to such uint8 pixels; None leaves them in 0 to 255.
        """
        statistics = None
        for images in batches:
            self._check_images(images)
            patches = patch_view(images, self.patch_size)  # (B, H/p, W/p, C, p, p)
            if statistics is None:
                kind = PixelCovariance if images.dtype == torch.uint8 else StreamingCovariance
                statistics = kind(patches.shape[3:], patches.device)
            statistics.update(patches)
        if statistics is None:
            raise ConfigError(
                f'{type(self).__name__} has no images to be fitted on: check the training data, or give num_images'
            )
        mean, covariance, count = statistics.finalize()
        if not covariance.isfinite().all():
            raise ConfigError(
                f'{type(self).__name__}: the images that it is fitted on hold NaN or infinite values: check the training '
                'data and what its pipeline and the data_preprocessor divide by'
            )
        if count <= self.latent_dim:
            raise ConfigError(
                f'{count} patches cannot span latent_dim={self.latent_dim}: fit {type(self).__name__} on more images, or take '
                f'fewer dimensions: --cfg-options model.tokenizer.latent_dim={max(1, int(count) // 4)}'
            )
        if normalization is not None:
            mean, covariance = normalization.of_statistics(mean, covariance)
        self._take_statistics(mean, covariance)

    @abstractmethod
    def _take_statistics(self, mean: Tensor, covariance: Tensor) -> None:
        """Fill the buffers from the patches' float64 mean (D,) and covariance (D, D), the same on all ranks."""

    def _set_maps(self, mean: Tensor, encoder: Tensor, decoder: Tensor, variances: Tensor) -> None:
        """Fill the maps from the mean patch (D,), rows (d, D) before normalisation, and the latents' variances (d,)."""
        norms = {'global': variances.mean().sqrt().expand_as(variances), 'whiten': variances.sqrt()}
        scale = norms.get(self.latent_norm, torch.ones_like(variances))
        self.scale.copy_(scale)
        self.patch_map.encoder.copy_(encoder / scale[:, None])
        self.patch_map.decoder.copy_(decoder * scale[:, None])
        self.patch_map.mean.copy_(mean)
        self.fitted.fill_(1)
        self._known_fitted = True

    def _check_rank(self, variances: Tensor) -> None:
        """Each latent dimension must vary: its scale divides."""
        rank = int((variances > variances.max() * 1e-10).sum())
        if rank < self.latent_dim:
            raise ConfigError(
                f'the patches vary in {rank} directions only, latent_dim={self.latent_dim} is more: lower latent_dim '
                f'or fit {type(self).__name__} on more varied images'
            )

    def _check_fitted(self) -> None:
        if not self.is_fitted:
            raise ConfigError(
                f'{type(self).__name__} is not fitted: train with FitTokenizerHook (our configs have it), load a '
                "checkpoint that holds one, or run tools/fit_pca.py and name its file in the tokenizer's `checkpoint`"
            )

    def _load_file(self, path: str) -> None:
        load_tokenizer(self, load_tokenizer_state(path, type(self).__name__), path)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        self._check_state(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _check_state(self, state_dict: dict, prefix: str) -> None:
        """Say in one line that a checkpoint holds another tokenizer, before tensor shapes do in many."""
        components, norm_id = state_dict.get(prefix + 'components'), state_dict.get(prefix + 'norm_id')
        if components is not None and components.shape != self.components.shape:
            raise ConfigError(
                f'the checkpoint holds a tokenizer of (latent_dim, patch pixels) {tuple(components.shape)}, the config '
                f'asks for {tuple(self.components.shape)}: use the config it was made with, or {self._remedy}'
            )
        norm = None if norm_id is None else dict(enumerate(LATENT_NORMS)).get(norm_id.sum().item())
        if norm_id is not None and norm != self.latent_norm:
            raise ConfigError(
                f"the checkpoint's tokenizer has latent_norm={norm!r}, the config says "
                f"'{self.latent_norm}': set the tokenizer's latent_norm to match, or {self._remedy}"
            )

    @property
    def _remedy(self) -> str:
        return 'fit a new one'


def open_tokenizer(path: str, img_size: Size = 256) -> PatchLinearTokenizer:
    """The tokenizer in a file, for images of at most ``img_size``: its geometry follows from its tensors, since 3 p^2 numbers are
    a patch of colours, and p^2 a grey one. Raises ConfigError if the file holds none that is linear per patch."""
    kind, state = read_tokenizer(path)
    components, norm = state.get('components'), state.get('norm_id')
    is_linear = issubclass(MODELS.get(f'ldae.{kind}') or object, PatchLinearTokenizer)
    if not is_linear or components is None or components.dim() != 2 or norm is None or norm.numel() != 1:
        raise ConfigError(f'{path} holds a {kind[:40]}, which is not linear per patch: name the checkpoint of a model')
    latent_dim, dim = components.shape
    channels = 1 if math.isqrt(dim) ** 2 == dim else 3
    patch_size = math.isqrt(dim // channels)
    if channels * patch_size**2 != dim or int(norm) not in range(len(LATENT_NORMS)):
        raise ConfigError(f'{path}: rows of {dim} numbers are no patches of grey or coloured pixels')
    more = dict(full_basis=True) if 'full_basis' in state else {}
    size = [max(1, edge // patch_size) * patch_size for edge in height_width(img_size)]
    cfg = dict(
        type=f'ldae.{kind}', img_size=as_size(size), patch_size=patch_size, in_channels=channels, latent_dim=latent_dim
    )
    tokenizer = MODELS.build(dict(cfg, latent_norm=LATENT_NORMS[int(norm)], **more))
    load_tokenizer(tokenizer, state, path)
    return tokenizer
