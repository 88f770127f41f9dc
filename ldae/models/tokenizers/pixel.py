# SPDX-License-Identifier: Apache-2.0
"""The "naive" tokenizer: pixels as they are."""

from collections.abc import Iterable
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from ldae.models.layers import AffinePatchMap, patchify, unpatchify
from ldae.registry import MODELS
from ldae.utils import Choice, ConfigError, checked
from ldae.utils.device import full_precision
from ldae.utils.sizes import Size, height_width

from .base import BaseTokenizer, load_tokenizer, load_tokenizer_state


@MODELS.register_module()
class PixelTokenizer(BaseTokenizer):
    """Patches of the image resized to ``resized`` pixels (paper, Figure 5).

    The number of tokens stays that of the full image, so that 256, 128, 64 and 32 pixels have patches of 16, 8, 4 and
    2, and 768, 192, 48 and 12 dimensions per token. Resizing is bicubic, down with antialiasing, and back up in
    ``decode``. Raises ConfigError for an option out of range.

    Args:
        img_size, patch_size, in_channels: See :class:`BaseTokenizer`.
        resized: Height of the resized image, that of ``img_size`` or less and a multiple of the tokens per side; its width
            follows.
        latent_norm: ``'none'``, normalised pixels being of about unit variance, or ``'global'``: latents shifted and scaled
            to mean 0 and variance 1 over the training set, which must be fitted (training does it).
        checkpoint: File of a fitted one, as training leaves it (``tokenizer_<key>.pth``).
    """

    @checked
    def __init__(
        self,
        img_size: Size = 256,
        patch_size: int = 16,
        in_channels: int = 3,
        resized: int | None = None,
        latent_norm: Annotated[str, Choice('global', 'none')] = 'none',
        checkpoint: str | None = None,
    ) -> None:
        height = height_width(img_size)[0]
        resized = height if resized is None else resized
        side = max(1, height // patch_size)
        if not isinstance(resized, int) or resized % side or not 0 < resized <= height:
            sizes = [side * p for p in range(1, patch_size + 1)]
            raise ConfigError(
                f'tokenizer PixelTokenizer: resized={resized!r} must be one of {sizes[0]}, {sizes[0] * 2}, ... '
                f'{sizes[-1]}: {side} tokens a side share its pixels'
            )
        self.resized, self.token_patch = resized, resized // side
        super().__init__(img_size, patch_size, in_channels, in_channels * self.token_patch**2)
        self.latent_norm, self.needs_fit = latent_norm, latent_norm != 'none'
        self.register_buffer('shift', torch.zeros(()))
        self.register_buffer('scale', torch.ones(()))
        self.register_buffer('fitted', torch.tensor(int(not self.needs_fit)))
        if resized == height and not self.needs_fit:
            # Resized, a token depends on pixels outside of its patch.
            self.patch_map = AffinePatchMap(self.latent_dim, self.geometry.patch_dim)
            torch.nn.init.eye_(self.patch_map.encoder)
            torch.nn.init.eye_(self.patch_map.decoder)
        if checkpoint is not None:
            load_tokenizer(self, load_tokenizer_state(checkpoint, type(self).__name__, 'training'), checkpoint)

    @property
    def is_whole(self) -> bool:
        """Whether pixels are taken at their full size."""
        return self.token_patch == self.patch_size

    @property
    def basis(self) -> Tensor | None:
        """The identity at full size; a resized image has no basis per patch."""
        if not self.is_whole:
            return None
        return torch.eye(self.latent_dim, device=self.scale.device)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        self._check_images(images)
        self._check_fitted()
        return (self._pixels(images) - self.shift) / self.scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        self._check_fitted()
        pixels = latents.float() * self.scale + self.shift
        return resize(unpatchify(pixels, self.token_patch, self.geometry.grid), height_width(self.geometry.img_size))

    def _pixels(self, images: Tensor) -> Tensor:
        size = tuple(edge * self.token_patch for edge in self.geometry.grid)
        return patchify(resize(images.float(), size), self.token_patch)

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Mean and variance over all pixels of this rank's batches (B, C, H, W); the result is the same on all ranks."""
        mean, variance = self._scalar_statistics(self._pixels, batches)
        self.shift.copy_(mean)
        self.scale.copy_(variance.sqrt().clamp(min=1e-6))
        self.fitted.fill_(1)

    def _check_fitted(self) -> None:
        if not self.is_fitted:
            raise ConfigError(
                "PixelTokenizer is not fitted: train with FitTokenizerHook (our configs have it), or set latent_norm='none'"
            )


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B, C, H, W) to (B, C, *size), bicubic, with antialiasing where they get smaller."""
    if images.shape[-2:] == size:
        return images
    with full_precision(images.device):
        return F.interpolate(images, size, mode='bicubic', antialias=True)
