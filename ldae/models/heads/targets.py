# SPDX-License-Identifier: Apache-2.0
"""Targets that are images: the original one, or the one that the clean latent decodes to."""

from torch import Tensor
from torch.nn import functional as F

from ldae.models.layers import patchify, unpatchify
from ldae.models.noisers import NoisySample
from ldae.models.tokenizers import BaseTokenizer
from ldae.registry import MODELS
from ldae.utils import ConfigError, Share, checked

from .base import DenoisingHead


class ImageHead(DenoisingHead):
    """Base of image targets: a prediction is the patches of an image."""

    space = 'image'

    def denoise(self, pred: Tensor, sample: NoisySample, tokenizer: BaseTokenizer) -> Tensor:
        return unpatchify(pred.float(), tokenizer.patch_size, tokenizer.geometry.grid)


@MODELS.register_module()
class DecodedImageHead(ImageHead):
    """Predict the image that the clean latent decodes to: ``lambda_t ||V^T z0 - net||^2`` (Table 3, "image output by
    inverse PCA")."""

    needs_images = False

    def error(self, pred: Tensor, sample: NoisySample, images: Tensor, tokenizer: BaseTokenizer) -> Tensor:
        return (patchify(tokenizer.decode(sample.z0), tokenizer.patch_size) - pred).square().mean(dim=-1)


@MODELS.register_module()
class OriginalImageHead(ImageHead):
    """Predict the original image: ``lambda_t sum_i w_i r_i^2`` with ``r = V_full (x0 - net)``, w_i = 1 in the first d
    components and ``tail_weight`` above (Table 3, "predict the original image").

    V_full is orthonormal, so the sum is ``tail_weight ||x0 - net||^2 + (1 - tail_weight) ||V_d (x0 - net)||^2``, exactly
    and without a D x D product.

    Args:
        tail_weight: Weight outside of the latent space, 0 to 1.
    """

    @checked
    def __init__(self, tail_weight: Share = 0.1) -> None:
        super().__init__()
        self.tail_weight = tail_weight

    def check(self, tokenizer: BaseTokenizer) -> None:
        if self.tail_weight != 1 and tokenizer.basis is None:
            raise ConfigError(
                f'OriginalImageHead.tail_weight={self.tail_weight} needs an orthonormal basis of the latent '
                f'space, which {type(tokenizer).__name__} does not have: set tail_weight=1 or use another tokenizer'
            )

    def error(self, pred: Tensor, sample: NoisySample, images: Tensor, tokenizer: BaseTokenizer) -> Tensor:
        residual = patchify(images, tokenizer.patch_size) - pred
        total = self.tail_weight * residual.square().sum(dim=-1)
        if self.tail_weight != 1:
            total = total + (1 - self.tail_weight) * F.linear(residual, tokenizer.basis).square().sum(dim=-1)
        return total / residual.shape[-1]
