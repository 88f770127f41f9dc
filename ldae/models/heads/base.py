# SPDX-License-Identifier: Apache-2.0
"""The contract of a head: what is predicted, and how the error counts."""

from abc import ABCMeta, abstractmethod

from mmengine.model import BaseModule
from torch import Tensor

from ldae.models.noisers import GaussianNoiser, NoisySample
from ldae.models.tokenizers import BaseTokenizer
from ldae.utils import ConfigError
from ldae.utils.device import full_precision


class DenoisingHead(BaseModule, metaclass=ABCMeta):
    """A prediction target. A subclass says what space it lives in and how to measure and to use a prediction."""

    #: 'latent' (d values per token) or 'image' (C * p * p values per token).
    space = 'latent'
    #: The loss weight lambda_t that belongs to this target (method section "Noisers").
    weighting = 'signal_share'
    #: Whether :meth:`error` looks at the images; where it doesn't, training from latents alone is possible.
    needs_images = True
    #: Whether a prediction is of the noise; else it is of the clean latents or images. What samples from a model asks.
    predicts_noise = False
    #: Time steps and losses (B,) of the last training batch, or (B, N) where tokens have their own, on its device, for whoever
    #: watches.
    recent: tuple[Tensor, Tensor] | None = None

    def check(self, tokenizer: BaseTokenizer) -> None:
        """Raise ConfigError if this target can't be computed with ``tokenizer``; called when the model is built."""

    def check_noiser(self, noiser: GaussianNoiser) -> None:
        """The same with the noise that will be added."""

    def check_inputs(self, inputs: Tensor) -> None:
        """Raise ConfigError if a batch is of latents (B, N, d) and the target needs images."""
        if self.needs_images and inputs.dim() == 3:
            raise ConfigError(f'the data are latents, but {self.why_images}')

    @property
    def why_images(self) -> str:
        """Why the target can't be had from latents, and what to do."""
        return (
            f'{type(self).__name__} needs the original image (its needs_images is True), which latents do not hold: '
            'train from images, or use a head that needs none (ldae.CleanLatentHead, ldae.NoiseHead, ldae.LatentHead, ldae.DecodedImageHead)'
        )

    @abstractmethod
    def error(self, pred: Tensor, sample: NoisySample, images: Tensor, tokenizer: BaseTokenizer) -> Tensor:
        """Squared error per token (B, N), averaged over its values; ``pred`` is float32 (B, N, out_dims)."""

    @abstractmethod
    def denoise(self, pred: Tensor, sample: NoisySample, tokenizer: BaseTokenizer) -> Tensor:
        """The clean images (B, C, H, W) that a prediction stands for."""

    def to_latents(self, pred: Tensor, sample: NoisySample, tokenizer: BaseTokenizer) -> Tensor:
        """The clean latents (B, N, d) that a prediction stands for, or the noise where :attr:`predicts_noise`. ``sample`` lacks
        what made it, z0 and noise: nobody knows them who samples."""
        return tokenizer.encode(self.denoise(pred, sample, tokenizer))

    def sample_loss(self, pred: Tensor, sample: NoisySample, images: Tensor, tokenizer: BaseTokenizer) -> Tensor:
        """lambda_t-weighted loss per image (B,)."""
        losses = self._level_loss(pred, sample, images, tokenizer)
        return losses if losses.dim() == 1 else losses.mean(dim=1)

    def _level_loss(self, pred: Tensor, sample: NoisySample, images: Tensor, tokenizer: BaseTokenizer) -> Tensor:
        """Weighted loss of each time step, shaped as ``sample.t``."""
        with full_precision(pred.device):
            error = self.error(pred.float(), sample, images, tokenizer)  # (B, N)
            return sample.weight.view(sample.t.shape) * (error.mean(dim=1) if sample.t.dim() == 1 else error)

    def loss(self, pred: Tensor, sample: NoisySample, images: Tensor, tokenizer: BaseTokenizer) -> dict[str, Tensor]:
        """pred (B, N, out_dims), images (B, C, H, W) -> ``{'loss': scalar}``."""
        losses = self._level_loss(pred, sample, images, tokenizer)
        self.recent = sample.t, losses.detach()
        return dict(loss=losses.mean())
