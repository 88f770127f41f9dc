# SPDX-License-Identifier: Apache-2.0
"""Targets in the latent space: noise, clean latent or velocity, each with its error in the space of any of the three."""

from typing import Annotated

import torch
from torch import Tensor

from ldae.models.noisers import GaussianNoiser, NoisySample
from ldae.models.tokenizers import BaseTokenizer
from ldae.registry import MODELS
from ldae.utils import Choice, ConfigError, NaturalInt, Range, check_range, checked

from .base import DenoisingHead

#: Of which any noisy latent z and one give the others: z = gamma clean + sigma noise.
Quantity = Annotated[str, Choice('noise', 'clean', 'velocity')]


@MODELS.register_module()
class LatentHead(DenoisingHead):
    """Predict the noise, the clean latent or the velocity; the error is that of the noise, clean latent or velocity that follow.

    The velocity is the direction of the schedule's path: ``z0 - eps`` where ``gamma + sigma = 1`` (flow matching), and
    ``gamma eps - sigma z0`` where ``gamma^2 + sigma^2 = 1`` (Salimans & Ho). An error e of one is an error
    ``e size(other) / size(one)`` of another, of sizes sigma (clean), gamma (noise) and 1 (velocity).

    Args:
        prediction: What the network gives.
        loss_space: Whose error counts; None: that of the prediction.
        clip: Least size that is divided by, where the two differ, and where samples are drawn: JiT's 0.05.
        rank: Predict so only the first dimensions of a latent, and the clean values of all others (AsymFlow). With velocity, 0 is
            clean prediction and d velocity prediction.
        min_snr: Weigh as if the error of the clean latent had the weight min(SNR, min_snr): the paper of that name has 5. Where
            there is no signal, the weight is 1.
    """

    weighting = 'uniform'
    needs_images = False
    #: Whether the path is straight, gamma + sigma = 1.
    is_straight = False

    @checked
    def __init__(
        self,
        prediction: Quantity = 'noise',
        loss_space: Quantity | None = None,
        clip: Annotated[float, Range(1e-3, 1)] = 0.05,
        rank: NaturalInt | None = None,
        min_snr: Annotated[float, Range(1e-3)] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.prediction, self.loss_space, self.clip = prediction, loss_space or prediction, clip
        self.rank, self.min_snr = rank, min_snr

    def check(self, tokenizer: BaseTokenizer) -> None:
        if self.rank is not None:
            check_range('LatentHead.rank', self.rank, 0, tokenizer.latent_dim, kind=int)
        if self.rank and self.rank < tokenizer.latent_dim and tokenizer.basis is None:
            raise ConfigError(
                f'LatentHead.rank={self.rank} takes the first dimensions of a basis, which {type(tokenizer).__name__} does not '
                'have: leave it out, or use ldae.PatchPCATokenizer'
            )

    def check_noiser(self, noiser: GaussianNoiser) -> None:
        if 'velocity' not in (self.prediction, self.loss_space):
            return
        gamma, sigma = noiser.gamma, noiser.sigma
        self.is_straight = torch.allclose(gamma + sigma, torch.ones_like(gamma), atol=1e-5)
        if not self.is_straight and not torch.allclose(gamma**2 + sigma**2, torch.ones_like(gamma), atol=1e-5):
            raise ConfigError(
                'LatentHead: the velocity of this noise schedule is not defined, which needs gamma + sigma = 1 (noiser.schedule='
                "'flow') or gamma^2 + sigma^2 = 1 ('linear_gamma_sq', 'ddpm_linear'): choose 'noise' or 'clean'"
            )

    def target(self, sample: NoisySample) -> Tensor:
        """The values (B, N, d) that the network should give."""
        if self.prediction == 'noise':
            first = sample.noise
        elif self.prediction == 'clean':
            first = sample.z0
        elif self.is_straight:
            first = sample.z0 - sample.noise
        else:
            first = sample.gamma * sample.noise - sample.sigma * sample.z0
        return self._joined(first, sample.z0, sample)

    def clean(self, pred: Tensor, sample: NoisySample) -> Tensor:
        """The clean latents (B, N, d) that a prediction stands for."""
        if self.prediction == 'clean':
            first = pred
        elif self.prediction == 'noise':
            # Where hardly anything of z0 is left, an error of the noise would be any number of times that of z0.
            first = (sample.z_t - sample.sigma * pred) / sample.gamma.clamp(min=self.clip)
        elif self.is_straight:
            first = sample.z_t + sample.sigma * pred
        else:
            first = sample.gamma * sample.z_t - sample.sigma * pred
        return self._joined(first, pred, sample)

    def _joined(self, first: Tensor, others: Tensor, sample: NoisySample) -> Tensor:
        """The dimensions below the rank from one, all others from the other."""
        if self.rank is None:
            return first
        dims = torch.arange(sample.z_t.shape[-1], device=first.device)
        return torch.where(dims < self.rank, first, others)

    def scale(self, sample: NoisySample) -> Tensor | None:
        """By what the squared errors of a prediction count, for (B, N, d); None: as they are."""
        if self.prediction == self.loss_space and self.rank is None and self.min_snr is None:
            return None
        one = torch.ones_like(sample.gamma)
        sizes = dict(noise=sample.gamma, clean=sample.sigma, velocity=one)
        to_loss = {name: sizes[self.loss_space] / size.clamp(min=self.clip) for name, size in sizes.items()}
        to_loss[self.loss_space] = one
        scale = self._joined(to_loss[self.prediction], to_loss['clean'], sample).square()
        if self.min_snr is None:
            return scale
        return scale * min_snr_weight(self.loss_space, sample.gamma, sample.sigma, self.min_snr)

    def error(self, pred: Tensor, sample: NoisySample, images: Tensor, tokenizer: BaseTokenizer) -> Tensor:
        squares, scale = (self.target(sample) - pred).square(), self.scale(sample)
        return (squares if scale is None else scale * squares).mean(dim=-1)

    def to_latents(self, pred: Tensor, sample: NoisySample, tokenizer: BaseTokenizer) -> Tensor:
        return pred if self.predicts_noise else self.clean(pred, sample)

    def denoise(self, pred: Tensor, sample: NoisySample, tokenizer: BaseTokenizer) -> Tensor:
        return tokenizer.decode(self.clean(pred.float(), sample))


def min_snr_weight(loss_space: Quantity, gamma: Tensor, sigma: Tensor, limit: float = 5.0) -> Tensor:
    """Weight of an error in a space that is ``min(SNR, limit)`` of that of the clean latent (Hang et al., arXiv 2303.09556); 1
    where there is no signal, as in their code."""
    snr = (gamma / sigma).square()
    per_clean = dict(clean=torch.ones_like(snr), noise=snr, velocity=sigma.square().reciprocal())[loss_space]
    return torch.where(snr == 0, 1.0, snr.clamp(max=limit) / per_clean)


@MODELS.register_module()
class NoiseHead(LatentHead):
    """Predict the noise: ``||eps - net||^2``, every time step counting the same (the DiT baseline). Samplers take the noise as it
    is."""

    predicts_noise = True

    def __init__(self, init_cfg: dict | None = None) -> None:
        super().__init__('noise', clip=1e-3, init_cfg=init_cfg)


@MODELS.register_module()
class CleanLatentHead(LatentHead):
    """Predict the clean latent: ``lambda_t ||z0 - net||^2`` (Table 3, "predict clean data")."""

    weighting = 'signal_share'

    def __init__(self, init_cfg: dict | None = None) -> None:
        super().__init__('clean', init_cfg=init_cfg)
