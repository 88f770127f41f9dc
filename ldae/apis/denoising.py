# SPDX-License-Identifier: Apache-2.0
"""Noise pictures to a chosen level, and denoise them."""

import os
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from ldae.models import LDAE
from ldae.utils import ConfigError, Range, check_range, checked
from ldae.utils.device import autocast
from ldae.utils.models import evaluating, unwrapped
from ldae.utils.ranges import Precision
from ldae.visualization import denoising_grid

from .feature_extractor import resolve_model
from .images import read_images, some_of
from .preprocess import Preprocess

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Whatever torch's generators take.
NoiseSeed = Annotated[int, Range(0, 2**63 - 1)]


class Denoised(NamedTuple):
    """Images as uint8 arrays (n, H, W, 3), RGB, or (n, H, W) for grey: as the model sees them, with noise, without."""

    clean: np.ndarray
    noisy: np.ndarray
    denoised: np.ndarray


@checked
def denoise(
    model: str | os.PathLike | Config | nn.Module | None,
    images: Any,
    t: int,
    seed: NoiseSeed = 0,
    checkpoint: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
    precision: Precision | None = None,
    **kwargs: Any,
) -> Denoised:
    """Add noise of level ``t`` to ``images`` and let an l-DAE take it out.

    The noise follows from ``seed`` alone: it is the same for each image and at each level.

    Args:
        model: An l-DAE, or what :func:`ldae.get_model` takes; None takes what ``checkpoint`` says of itself.
        images: What :class:`ldae.FeatureExtractor` takes. They are resized and cropped as the model's test images are.
        t: Time step, 0 to T - 1.
        seed: Of the noise, 0 to 2**63 - 1.
        checkpoint, device, precision, **kwargs: As :class:`ldae.FeatureExtractor` takes them.

    Raises:
        ConfigError: The model is not an l-DAE, or its tokenizer isn't fitted; a number out of range; an unreadable image.
    """
    model = check_denoiser(resolve_model(model, checkpoint, device, **kwargs), [t])
    preprocess = Preprocess(model)
    triplets = []
    with evaluating(model), autocast(precision, next(model.parameters()).device):
        for image in read_images(images):
            inputs = preprocess.batch([preprocess.transform(image)])
            triplet = model.denoise(inputs, t, torch.Generator(inputs.device).manual_seed(seed))
            triplets.append([pixel_arrays(model.to_pixels(part), preprocess.is_bgr) for part in triplet])
    return Denoised(*(np.concatenate(parts) for parts in zip(*triplets, strict=True)))


@checked
def denoising_figure(
    model: nn.Module,
    images: Any,
    timesteps: list[int],
    seed: NoiseSeed = 0,
    limit: int = 8,
    precision: Precision | None = None,
) -> 'Figure':
    """A figure of ``limit`` images, of files of different folders as far as there are: clean, then noisy and denoised at each of ``timesteps``."""
    model = check_denoiser(model, timesteps)
    preprocess = Preprocess(model)
    pictures = [preprocess.transform(image) for image in islice(read_images(some_of(images, limit)), limit)]
    inputs = preprocess.batch(pictures)
    if preprocess.is_bgr:
        raise ConfigError('the model takes BGR images: ldae.denoise gives them as RGB arrays')
    with evaluating(model), autocast(precision, inputs.device):
        return draw_denoising(model, inputs, timesteps, seed)


def draw_denoising(model: nn.Module, images: Tensor, timesteps: Sequence[int], seed: int = 0) -> 'Figure':
    """Figure of normalised ``images`` (B, C, H, W) denoised by an l-DAE at each of ``timesteps``."""
    noisy, denoised = [], []
    for t in timesteps:
        generator = torch.Generator(images.device).manual_seed(seed)
        _, noisy_t, denoised_t = model.denoise(images, t, generator=generator)
        noisy.append(model.to_pixels(noisy_t))
        denoised.append(model.to_pixels(denoised_t))
    sigmas = [float(model.noiser.sigma[t]) for t in timesteps]
    return denoising_grid(model.to_pixels(images), noisy, denoised, timesteps, sigmas)


def check_denoiser(model: nn.Module, timesteps: list[int]) -> LDAE:
    """The l-DAE in ``model``, if it can denoise at ``timesteps``."""
    model = unwrapped(model)
    if not isinstance(model, LDAE):
        raise ConfigError(
            f'denoise: {type(model).__name__} adds no noise: give a pre-trained l-DAE; an encoder that was exported, probed or '
            'fine-tuned has no decoder'
        )
    for t in timesteps:
        check_range('denoise.t', t, 0, model.noiser.num_timesteps - 1, kind=int)
    return model


def pixel_arrays(pixels: Tensor, is_bgr: bool) -> np.ndarray:
    """Pixels (B, C, H, W) in [0, 255] -> uint8 (B, H, W, 3) RGB or (B, H, W)."""
    array = pixels.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return array[..., 0] if array.shape[3] == 1 else array[..., ::-1] if is_bgr else array
