# SPDX-License-Identifier: Apache-2.0
"""Tokenizers that are trained by gradients, before the model that uses them."""

from abc import abstractmethod
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ldae.config.reading import configs_root
from ldae.utils import ConfigError

from .base import BaseTokenizer, load_tokenizer_state


class Gaussian(NamedTuple):
    """A diagonal Gaussian posterior, ``mean`` and ``logvar`` of one shape (B, ...)."""

    mean: Tensor
    logvar: Tensor

    def sample(self) -> Tensor:
        """Reparametrised."""
        return self.mean + torch.exp(0.5 * self.logvar) * torch.randn_like(self.mean)

    def kl(self) -> Tensor:
        """KL divergence from the standard normal, summed over all but the batch: (B,)."""
        terms = self.mean.square() + self.logvar.exp() - 1 - self.logvar
        return 0.5 * terms.flatten(1).sum(dim=1)


class Reconstruction(NamedTuple):
    """The result of a network in training.

    ``target`` and ``output`` are images (B, C, H, W) in the range that the network works in; ``posterior`` is None for
    an autoencoder without noise."""

    target: Tensor
    output: Tensor
    posterior: Gaussian | None = None


class TrainableNet(nn.Module):
    """The network behind a learned tokenizer, while it is trained: images (B, C, H, W) -> :class:`Reconstruction`.

    It works on ``images * gain + offset``: normalised pixels as they are, unless :meth:`set_pixels` is called."""

    #: Whether the network wants pixels in [-1, 1].
    signed = False

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.register_buffer('gain', torch.ones(in_channels, 1, 1))
        self.register_buffer('offset', torch.zeros(in_channels, 1, 1))

    @property
    @abstractmethod
    def last_layer(self) -> nn.Parameter:
        """The weight that writes the image; the adaptive weight of the adversarial loss looks at its gradient."""

    def set_pixels(self, mean: Tensor, std: Tensor) -> None:
        """Take the mean and deviation (C, 1, 1), of 8-bit values, that images were normalised with."""
        if self.signed:
            self.gain.copy_(std / 127.5)
            self.offset.copy_(mean / 127.5 - 1)

    def to_range(self, images: Tensor) -> Tensor:
        return images * self.gain + self.offset

    def from_range(self, images: Tensor) -> Tensor:
        return (images - self.offset) / self.gain


class LearnedTokenizer(BaseTokenizer):
    """A tokenizer whose file comes from a training run with ``ldae.TokenizerTrainer``.

    ``fit`` measures what latents are scaled by, after training; pre-training never calls it (``needs_fit`` is False).
    """

    #: The configs that train it, by latent dimension; a checkpoint's folder names the very one.
    recipes: dict[int, str] = {}
    #: What the names of all configs that train it begin with.
    family = ''

    @abstractmethod
    def training_net(self) -> TrainableNet:
        """A network to train, starting from the weights that this tokenizer has."""

    @abstractmethod
    def take(self, net: TrainableNet) -> None:
        """Take over a trained network's weights; :meth:`fit` comes next."""

    def training_command(self, checkpoint: str | None = None) -> str:
        """The command that trains such a tokenizer."""
        folder = Path(checkpoint or '').parent  # work_dirs/[scale/]config
        name, scale = folder.name, folder.parent.name
        if not name.startswith(self.family) or not (configs_root() / 'tokenizers' / f'{name}.py').is_file():
            name = self.recipes[min(self.recipes, key=lambda d: abs(d - self.latent_dim))]
        is_scaled = scale and (configs_root() / 'scales' / f'{scale}.py').is_file()
        return f'tools/train.py configs/tokenizers/{name}.py' + (f' --scale {scale}' if is_scaled else '')

    def _reset(self) -> None:
        """Back to latents that are not scaled, and not fitted."""
        self.scale.fill_(1)
        self.fitted.fill_(0)
        self._known_fitted = False

    def _check_fitted(self) -> None:
        if not self.is_fitted:
            raise ConfigError(
                f'{type(self).__name__} is not trained: run {self.training_command()} and name its tokenizer.pth in '
                "the tokenizer's `checkpoint`"
            )

    def _load_trained(self, path: str) -> None:
        command = self.training_command(path)
        state = load_tokenizer_state(path, type(self).__name__, command)
        try:
            self.load_state_dict(state)
        except ConfigError as error:
            raise ConfigError(f'{path}: {error}; {command} trains one') from error
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise ConfigError(f'{path} does not fit {type(self).__name__}: {reason} {command} trains one') from error
        if not self.is_fitted:
            raise ConfigError(f'{path} holds a {type(self).__name__} that is not trained: run {command}')
