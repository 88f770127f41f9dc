# SPDX-License-Identifier: Apache-2.0
"""The contract of a tokenizer, and its file."""

import os
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.model import BaseModule
from torch import Tensor

from ldae.models.layers import AffinePatchMap
from ldae.utils import ConfigError, PositiveInt, check_range, checked
from ldae.utils.checkpoints import check_archive
from ldae.utils.files import atomic_save
from ldae.utils.sizes import Size, as_size, height_width

from .streaming_covariance import StreamingCovariance


class Geometry(NamedTuple):
    """The shapes that a tokenizer's config gives; the other components are built from it or checked against it."""

    img_size: int | tuple[int, int]
    patch_size: int
    in_channels: int
    latent_dim: int

    @property
    def grid(self) -> tuple[int, int]:
        return tuple(edge // self.patch_size for edge in height_width(self.img_size))

    @property
    def num_tokens(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def patch_dim(self) -> int:
        return self.in_channels * self.patch_size**2


class BaseTokenizer(BaseModule, metaclass=ABCMeta):
    """Image (B, C, H, W) to latent tokens (B, N, d) of about unit variance, and back.

    A tokenizer is frozen while a model is pre-trained: all its state is buffers or weights without gradients, it computes in float32 and outside
    autograd. One that must be fitted first sets ``needs_fit`` and implements :meth:`fit`. Raises ConfigError if these
    don't fit together.

    Args:
        img_size: Height and width of the input in pixels: one number for a square, (height, width) for others.
        patch_size: Height and width of the patch behind one token; divides both of ``img_size``.
        in_channels: Image channels.
        latent_dim: Dimensions d per token, 1 to ``in_channels * patch_size ** 2``.
    """

    needs_fit = False

    @checked
    def __init__(
        self, img_size: Size, patch_size: PositiveInt, in_channels: PositiveInt, latent_dim: PositiveInt
    ) -> None:
        super().__init__()
        # Set by tokenizers that are linear per patch: lets the encoder work without going through pixels.
        self.patch_map: AffinePatchMap | None = None
        self._known_fitted = False
        where = type(self).__name__
        if any(edge % patch_size for edge in height_width(img_size)):
            raise ConfigError(
                f'{where}.img_size={as_size(img_size)} is not divisible by patch_size={patch_size}: change one of them, or pad or crop '
                'the images (--divide)'
            )
        self.geometry = Geometry(as_size(img_size), patch_size, in_channels, latent_dim)
        check_range(f'{where}.latent_dim', latent_dim, 1, self.geometry.patch_dim, kind=int)

    latent_dim = property(attrgetter('geometry.latent_dim'))
    num_tokens = property(attrgetter('geometry.num_tokens'))
    patch_size = property(attrgetter('geometry.patch_size'))

    @property
    def is_fitted(self) -> bool:
        """Whether :meth:`encode` may be called: what has a buffer ``fitted`` says so there."""
        # The buffer is read (a device sync) until it says yes, then never again.
        if not self._known_fitted:
            fitted = getattr(self, 'fitted', None)
            self._known_fitted = fitted is None or (not fitted.is_meta and bool(fitted))
        return self._known_fitted

    def take_as_fitted(self) -> None:
        """Let values that aren't there count as fitted, of a model whose operations are only counted."""
        self._known_fitted = True

    @property
    def basis(self) -> Tensor | None:
        """Orthonormal rows (d, C * p * p) that span the latent space in pixels, or None if there are none."""
        return None

    @property
    def kept_variance(self) -> float | None:
        """Share of the patches' variance that latents keep, where it is known."""
        return None

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """(B, C, H, W) normalised pixels -> (B, N, d)."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """(B, N, d) -> (B, C, H, W) normalised pixels."""

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Fit to batches of images (B, C, H, W); only where ``needs_fit``."""
        raise NotImplementedError(f'{type(self).__name__} needs no fitting')

    def _scalar_statistics(
        self, values: Callable[[Tensor], Tensor], batches: Iterable[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Mean and variance of all numbers of ``values(images)`` over the batches of all ranks."""
        statistics = None
        for images in batches:
            self._check_images(images)
            numbers = values(images).reshape(-1, 1)
            statistics = statistics or StreamingCovariance(1, numbers.device)
            statistics.update(numbers)
        if statistics is None:
            raise ConfigError(f'{type(self).__name__} has no images to be fitted on: check the training data')
        mean, variance, _ = statistics.finalize()
        return mean.squeeze(), variance.squeeze()

    def _load_from_state_dict(self, *args) -> None:
        self._known_fitted = False
        super()._load_from_state_dict(*args)

    def _check_images(self, images: Tensor) -> None:
        g = self.geometry
        expected = (g.in_channels, *height_width(g.img_size))
        if tuple(images.shape[1:]) != expected:
            raise ConfigError(
                f'tokenizer {type(self).__name__} is set for images of (channels, height, width) {expected}, but the '
                f'data pipeline gives {tuple(images.shape[1:])}: change img_size/in_channels of the tokenizer or the '
                'resize and crop of the pipeline'
            )

    def train(self, mode: bool = True) -> 'BaseTokenizer':
        """Stay in evaluation mode: a tokenizer is frozen."""
        return super().train(False)


def save_tokenizer(tokenizer: BaseTokenizer, path: str | os.PathLike) -> None:
    """Write the tokenizer's state to ``path``, whole or not at all."""
    state = {name: value.cpu() for name, value in tokenizer.state_dict().items()}
    atomic_save(dict(tokenizer=type(tokenizer).__name__, state_dict=state), path)


def load_tokenizer_state(
    path: str | os.PathLike, kind: str | None = None, remedy: str = 'tools/fit_pca.py'
) -> dict[str, Tensor]:
    """State dict of a file written by :func:`save_tokenizer`. Raises ConfigError, with a ``remedy``, the command
    that makes such a file, if it is missing or holds another ``kind``, the class name of the tokenizer; None takes
    any."""
    found, state = read_tokenizer(path, remedy)
    if kind not in (None, found):
        raise ConfigError(f'{path} holds a {found}, the config asks for a {kind}: make one with {remedy}')
    return state


def read_tokenizer(path: str | os.PathLike, remedy: str = 'tools/fit_pca.py') -> tuple[str, dict[str, Tensor]]:
    """Class name and state dict in a file written by :func:`save_tokenizer`."""
    if not Path(path).is_file():
        raise ConfigError(f'tokenizer file {path} does not exist: make it with {remedy}')
    check_archive(path)
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
        found, state = str(content['tokenizer']), dict(content['state_dict'])
        if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()):
            raise TypeError
    except Exception as error:
        raise ConfigError(f'{path} is not a tokenizer file ({type(error).__name__}): make one with {remedy}') from error
    return found, state


def load_tokenizer(tokenizer: BaseTokenizer, state: Mapping[str, Tensor], path: str | os.PathLike) -> None:
    """Fill a tokenizer from the state of its file; raise ConfigError, in one line, if it doesn't fit."""
    try:
        tokenizer.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ConfigError(f'{path} does not fit {type(tokenizer).__name__}: {reason}') from error
