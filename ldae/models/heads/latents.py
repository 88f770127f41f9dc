# SPDX-License-Identifier: Apache-2.0
"""Targets in the latent space."""

from torch import Tensor

from ldae.models.noisers import NoisySample
from ldae.models.tokenizers import BaseTokenizer
from ldae.registry import MODELS

from .base import DenoisingHead


@MODELS.register_module()
class NoiseHead(DenoisingHead):
    """Predict the noise: ``||eps - net||^2``, every time step counting the same (the DiT baseline)."""

    weighting = 'uniform'
    needs_images = False
    predicts_noise = True

    def error(self, pred: Tensor, sample: NoisySample, images: Tensor, tokenizer: BaseTokenizer) -> Tensor:
        return (sample.noise - pred).square().mean(dim=-1)

    def denoise(self, pred: Tensor, sample: NoisySample, tokenizer: BaseTokenizer) -> Tensor:
        # gamma is 0 at the last step of "linear gamma^2": nothing of z0 is left there to be recovered.
        return tokenizer.decode((sample.z_t - sample.sigma * pred.float()) / sample.gamma.clamp(min=1e-3))


@MODELS.register_module()
class CleanLatentHead(DenoisingHead):
    """Predict the clean latent: ``lambda_t ||z0 - net||^2`` (Table 3, "predict clean data")."""

    needs_images = False

    def error(self, pred: Tensor, sample: NoisySample, images: Tensor, tokenizer: BaseTokenizer) -> Tensor:
        return (sample.z0 - pred).square().mean(dim=-1)

    def denoise(self, pred: Tensor, sample: NoisySample, tokenizer: BaseTokenizer) -> Tensor:
        return tokenizer.decode(pred)
