# SPDX-License-Identifier: Apache-2.0
"""Noise pictures to a chosen level, and denoise them."""

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from ldae.apis.feature_extractor import resolve_model
from ldae.apis.images import read_images, some_of
from ldae.apis.preprocess import Preprocess
from ldae.models import LDAE
from ldae.utils import ConfigError, PositiveInt, Range, check_range, checked
from ldae.utils.device import autocast
from ldae.utils.models import evaluating, unwrapped
from ldae.utils.ranges import Precision
from ldae.utils.rng import seed_of
from ldae.visualization import denoising_grid, image_rows

from .samplers import DiffusionSampler, SamplerName, SingleLevelError
from .start import draw_noise, generators_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Images (B, C, H, W) and a generator on their device -> (clean, noisy, denoised) images.
Denoiser = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor, Tensor]]
#: Whatever torch's generators take.
NoiseSeed = Annotated[int, Range(0, 2**63 - 1)]


class Denoised(NamedTuple):
    """Images as uint8 arrays (n, H, W, C), RGB where C = 3, or (n, H, W) for grey: as the model sees them, with noise, without."""

    clean: np.ndarray
    noisy: np.ndarray
    denoised: np.ndarray


@checked
def denoise(
    model: str | os.PathLike | Config | nn.Module | None,
    images: Any,
    t: int,
    seed: NoiseSeed = 0,
    steps: PositiveInt | None = None,
    sampler: SamplerName = 'dpm++',
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
        steps: Take the noise out little by little, in so many steps of a ``sampler``, which makes up what is lost; None takes it
            out at once, which gives the mean of all that could be there.
        checkpoint, device, precision, **kwargs: As :class:`ldae.FeatureExtractor` takes them.

    Raises:
        ConfigError: The model is not an l-DAE, or its tokenizer isn't fitted; a number out of range; an unreadable image.
    """
    model = check_denoiser(resolve_model(model, checkpoint, device, **kwargs), [t])
    preprocess = Preprocess(model)
    take_out = denoiser(model, t, steps, sampler)
    triplets = []
    with evaluating(model), autocast(precision, next(model.parameters()).device):
        for image in preprocess.read(images):
            inputs = preprocess.batch([preprocess.transform(image)])
            triplet = take_out(inputs, torch.Generator(inputs.device).manual_seed(seed))
            triplets.append([pixel_arrays(model.to_pixels(part), preprocess.is_bgr) for part in triplet])
    return Denoised(*(np.concatenate(parts) for parts in zip(*triplets, strict=True)))


def denoiser(model: LDAE, t: int, steps: int | None = None, sampler: str = 'dpm++') -> Denoiser:
    """A function of images (B, C, H, W) and a generator on their device that gives (clean, noisy, denoised) images."""
    if steps is None:
        return lambda images, generator: model.denoise(images, t, generator)
    runs = sampler_of(model, sampler, steps, start=t)

    @torch.no_grad()
    def take_out(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        z = model.noiser(model.tokenizer.encode(images), torch.tensor([t]).expand(len(images)), generator).z_t
        z0 = runs.run(z, partial(predict, model), generators_of(generator.initial_seed(), range(len(images))))
        return images, model.tokenizer.decode(z), model.tokenizer.decode(z0)

    return take_out


def sampler_of(model: LDAE, name: str, steps: int, eta: float = 0.0, start: int | None = None) -> DiffusionSampler:
    """The sampler of this name over a model's levels of noise. Raises ConfigError for a model of a single level."""
    noiser = model.noiser
    if not noiser.draws_levels:
        raise SingleLevelError(
            f'noiser.level={noiser.level} is the only level of noise, and one has no way from noise to images: sample from a model '
            "with level='drawn'"
        )
    return DiffusionSampler(noiser.gamma, noiser.sigma, name, steps, model.head.predicts_noise, eta, start)


def predict(model: LDAE, z_t: Tensor, t: int, labels: Tensor | None = None) -> Tensor:
    """The network's prediction from latents (B, N, d), all of one time step."""
    return model.predict_latents(z_t, torch.full((len(z_t),), t, device=z_t.device), labels)


@checked
def denoising_figure(
    model: nn.Module,
    images: Any,
    timesteps: list[int],
    seed: NoiseSeed = 0,
    limit: int = 8,
    precision: Precision | None = None,
    steps: PositiveInt | None = None,
    sampler: SamplerName = 'dpm++',
) -> 'Figure':
    """A figure of ``limit`` images, of files of different folders as far as there are: clean, then noisy and denoised at each of ``timesteps``."""
    model = check_denoiser(model, timesteps)
    inputs = _read(model, images, limit)
    with evaluating(model), autocast(precision, inputs.device):
        return draw_denoising(model, inputs, timesteps, seed, steps, sampler)


def _read(model: LDAE, images: Any, limit: int) -> Tensor:
    """At most so many images, of files of different folders, as the model takes them."""
    reader = Preprocess(model).reader
    return prepared_images(model, islice(read_images(some_of(images, limit, reader), reader), limit))


def prepared_images(model: LDAE, images: Iterable[np.ndarray]) -> Tensor:
    """Pictures as the model takes them (B, C, H, W), to be drawn."""
    preprocess = Preprocess(model)
    inputs = preprocess.batch([preprocess.transform(image) for image in images])
    if preprocess.is_bgr:
        raise ConfigError('the model takes BGR images: ldae.denoise gives them as RGB arrays')
    return inputs


def draw_denoising(
    model: nn.Module,
    images: Tensor,
    timesteps: Sequence[int],
    seed: int = 0,
    steps: int | None = None,
    sampler: str = 'dpm++',
) -> 'Figure':
    """Figure of normalised ``images`` (B, C, H, W) denoised by an l-DAE at each of ``timesteps``, at once or in ``steps``."""
    noisy, denoised = [], []
    for t in timesteps:
        generator = torch.Generator(images.device).manual_seed(seed)
        _, noisy_t, denoised_t = denoiser(model, t, steps, sampler)(images, generator)
        noisy.append(model.pictures(noisy_t))
        denoised.append(model.pictures(denoised_t))
    sigmas = [float(model.noiser.sigma[t]) for t in timesteps]
    return denoising_grid(model.pictures(images), noisy, denoised, timesteps, sigmas)


@checked
def interpolation_figure(
    model: nn.Module,
    images: Any,
    timesteps: list[int],
    num: Annotated[int, Range(2)] = 8,
    steps: PositiveInt = 50,
    sampler: SamplerName = 'dpm++',
    seed: NoiseSeed = 0,
    precision: Precision | None = None,
) -> 'Figure':
    """A figure of ``num`` pictures from the first of two images to the second: their latents are mixed, noised to each of
    ``timesteps`` and denoised (Ho et al., "Denoising Diffusion Probabilistic Models", section 4.3)."""
    model = check_denoiser(model, timesteps)
    inputs = _read(model, images, 3)
    if len(inputs) != 2:
        raise ConfigError(
            f'an interpolation goes from one image to another: give two, not {"more" if len(inputs) > 2 else len(inputs)}'
        )
    with evaluating(model), autocast(precision, inputs.device):
        rows = [model.pictures(interpolate(model, inputs, t, num, steps, sampler, seed)) for t in timesteps]
    captions = [f't = {t},  $\\sigma$ = {float(model.noiser.sigma[t]):.2f}' for t in timesteps]
    return image_rows(rows, captions)


@torch.no_grad()
def interpolate(
    model: LDAE, pair: Tensor, t: int, num: int = 8, steps: int = 50, sampler: str = 'dpm++', seed: int = 0
) -> Tensor:
    """Images (num, C, H, W) from the first to the second of ``pair`` (2, C, H, W).

    All have the noise of the seed, so that a mixture of noisy latents is a noisy mixture of latents.
    """
    share = torch.linspace(0, 1, num, device=pair.device).view(-1, 1, 1)
    first, second = model.tokenizer.encode(pair).split(1)
    mixed = (1 - share) * first + share * second
    noise = draw_noise(mixed.shape[1:], [torch.Generator().manual_seed(seed)]).to(mixed).expand_as(mixed)
    z = model.noiser(mixed, torch.full((num,), t, device=mixed.device), noise=noise).z_t
    generators = [torch.Generator().manual_seed(seed_of(seed, 'steps')) for _ in range(num)]
    return model.tokenizer.decode(
        sampler_of(model, sampler, steps, start=t).run(z, partial(predict, model), generators)
    )


def check_denoiser(model: nn.Module, timesteps: list[int]) -> LDAE:
    """The l-DAE in ``model``, if it can denoise at ``timesteps``."""
    model = unwrapped(model)
    if not isinstance(model, LDAE):
        raise ConfigError(
            f'{type(model).__name__} adds no noise: give a pre-trained l-DAE; an encoder that was exported, probed or '
            'fine-tuned has no decoder'
        )
    for t in timesteps:
        check_range('denoise.t', t, 0, model.noiser.num_timesteps - 1, kind=int)
    return model


def pixel_arrays(pixels: Tensor, is_bgr: bool) -> np.ndarray:
    """Pixels (B, C, H, W) in [0, 255] -> uint8 (B, H, W, C), RGB where C = 3, or (B, H, W)."""
    array = pixels.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return array[..., 0] if array.shape[3] == 1 else array[..., ::-1] if is_bgr else array
