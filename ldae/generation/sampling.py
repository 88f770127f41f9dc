# SPDX-License-Identifier: Apache-2.0
"""Images from a pre-trained l-DAE: noise in, pictures out."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import barrier, get_rank, get_world_size, is_main_process
from mmengine.logging import print_log
from torch import Tensor, nn
from tqdm import tqdm

from ldae.apis.feature_extractor import resolve_model
from ldae.apis.preprocess import Preprocess
from ldae.apis.probing import images_config
from ldae.models import LDAE
from ldae.registry import DATASETS
from ldae.utils import ConfigError, PositiveInt, Range, Share, check_range, checked
from ldae.utils.collective import failing_together, from_main_process
from ldae.utils.device import autocast
from ldae.utils.models import evaluating, hash_tensors
from ldae.utils.ranges import Precision

from .denoising import NoiseSeed, check_denoiser, pixel_arrays, predict, sampler_of
from .folder import SampleFolder
from .samplers import SamplerName
from .start import Moments, draw_start, generators_of, measure_moments, starts_from_noise

Guidance = Annotated[float, Range(0, 1000)]


class Samples(NamedTuple):
    """Images as uint8 (n, H, W, C), RGB where C = 3, or (n, H, W) for grey, and the labels (n,) that they were asked for, if any."""

    images: np.ndarray
    labels: np.ndarray | None


class ImageSampler:
    """Images by their numbers: image i follows from the seed and i alone, whatever else is in its batch, up to the rounding
    of products of other shapes.

    Args:
        model: An l-DAE, in evaluation mode.
        sampler, steps, eta: See :class:`DiffusionSampler`.
        guidance: Scale of classifier-free guidance: 1 is the model's own prediction for the label, more exaggerates what the
            label changes, 0 leaves the label out. Only of a class-conditional model.
        guidance_channels: Guide only so many channels of the latent map, the first ones; DiT's code guides 3 of 4.
        labels: Classes, dealt out to the images in turn; None deals out all of a class-conditional model.
        seed: Of the noise.
        moments: Of the latents, to start from where the schedule doesn't end in noise.

    Raises:
        ConfigError: An option that is out of range, or that the model can't follow.
    """

    @checked
    def __init__(
        self,
        model: nn.Module,
        sampler: SamplerName = 'dpm++',
        steps: PositiveInt = 50,
        guidance: Guidance = 1.0,
        guidance_channels: PositiveInt | None = None,
        eta: Share = 0.0,
        labels: Sequence[int] | None = None,
        seed: NoiseSeed = 0,
        moments: Moments | None = None,
    ) -> None:
        self.model, self.seed, self.moments = check_denoiser(model, []), seed, moments
        self._sampler = sampler_of(self.model, sampler, steps, eta)
        #: All that decides about an image but the weights.
        self.settings = dict(sampler=sampler, steps=steps, eta=eta, guidance=guidance, labels=labels and list(labels))
        self.settings |= dict(guidance_channels=guidance_channels, seed=seed)
        self._labels = check_labels(self.model, labels, guidance, guidance_channels)
        self._guidance, self._guided = guidance, guided_dims(self.model, guidance_channels)
        if not self.model.tokenizer.is_fitted:
            raise ConfigError('the model is not trained: its tokenizer is not fitted')
        self._preprocess = Preprocess(self.model)

    @property
    def start(self) -> int:
        """Time step of the noise that is started from."""
        return self._sampler.start

    def labels_of(self, numbers: Sequence[int]) -> list[int] | None:
        """Classes of the images with these numbers; None where the model knows none."""
        return None if self._labels is None else [self._labels[i % len(self._labels)] for i in numbers]

    def __call__(self, numbers: Sequence[int]) -> np.ndarray:
        """The images with these numbers: uint8 (B, H, W, 3), RGB, or (B, H, W) for grey."""
        generators = generators_of(self.seed, numbers)
        z = draw_start(self.model, self.start, self.moments, generators)
        return self.decode(self.denoise(z, self.labels_of(numbers), generators))

    @torch.no_grad()
    def denoise(self, z: Tensor, labels: Sequence[int] | None, generators: Sequence[torch.Generator]) -> Tensor:
        """Latents (B, N, d) at level :attr:`start` -> clean ones."""
        classes = None if labels is None else torch.tensor(labels, device=z.device)
        return self._sampler.run(z, lambda z_t, t: self._predict(z_t, t, classes), generators)

    @torch.no_grad()
    def decode(self, z0: Tensor) -> np.ndarray:
        """Clean latents (B, N, d) -> uint8 images."""
        pixels = self.model.to_pixels(self.model.tokenizer.decode(z0))
        return pixel_arrays(pixels, self._preprocess.is_bgr)

    def _predict(self, z_t: Tensor, t: int, labels: Tensor | None) -> Tensor:
        if labels is None or self._guidance == 1:
            return predict(self.model, z_t, t, labels)
        without = torch.full_like(labels, self.model.num_classes)
        both = predict(self.model, z_t.repeat(2, 1, 1), t, torch.cat([labels, without]))
        given, free = both.chunk(2)
        guided = free + self._guidance * (given - free)
        return guided if self._guided is None else torch.where(self._guided.to(z_t.device), guided, given)


def check_labels(
    model: LDAE, labels: Sequence[int] | None, guidance: float, channels: int | None = None
) -> list[int] | None:
    """The classes to deal out."""
    if model.num_classes is None:
        given = dict(labels=labels, guidance=None if guidance == 1 else guidance, guidance_channels=channels)
        for name, value in given.items():
            if value is not None:
                raise ConfigError(
                    f'{name}={value}: the model is not class-conditional (it has no num_classes): leave it out'
                )
        return None
    for label in labels or ():
        check_range('labels', label, 0, model.num_classes - 1, kind=int)
    if guidance == 0 and labels is not None:
        raise ConfigError('labels: guidance=0 leaves them out: leave out one of the two')
    return None if guidance == 0 else list(labels or range(model.num_classes))


def guided_dims(model: LDAE, channels: int | None) -> Tensor | None:
    """Which of a token's values (d,) are of the first ``channels`` channels; None where all are guided."""
    if channels is None:
        return None
    of_map = getattr(model.tokenizer, 'channels', model.tokenizer.latent_dim)
    check_range('guidance_channels', channels, 1, of_map, kind=int)
    # A token holds its cells channel by channel.
    return torch.arange(model.tokenizer.latent_dim) < channels * (model.tokenizer.latent_dim // of_map)


@checked
def sample(
    model: str | os.PathLike | Config | nn.Module | None = None,
    num: PositiveInt = 64,
    checkpoint: str | os.PathLike | None = None,
    out: str | os.PathLike | None = None,
    batch_size: PositiveInt = 64,
    data_root: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
    precision: Precision | None = None,
    ema: bool = False,
    force: bool = False,
    progress: bool = True,
    **options: Any,
) -> Samples | Path:
    """Sample images from a pre-trained l-DAE.

    Args:
        model: An l-DAE, or what :func:`ldae.get_model` takes; None takes what ``checkpoint`` says of itself.
        num: How many images.
        out: Folder to write to; images that an interrupted call of the same settings has left there are kept.
        batch_size: Images at a time.
        data_root: Folder of the images whose latents' mean and covariance are started from, in place of the model's own
            training images. Looked at only where the noise schedule doesn't end in noise, as ``linear_sigma``.
        checkpoint, device, precision: As of :class:`ldae.FeatureExtractor`.
        ema: Take the running average of the weights that the checkpoint holds.
        force: Remove the images that a call of other settings has left in ``out``.
        progress: Show a bar on the main process, if it writes to a terminal.
        **options: Of :class:`ldae.generation.ImageSampler`: sampler, steps, guidance, labels, seed and others.

    Returns:
        :class:`Samples`; or ``out`` where there is one, and then the images need not fit into the memory. In a distributed
        run all processes call this, with ``out``, and share the work.

    Raises:
        ConfigError: The model can't be sampled from, an option is out of range, or ``out`` holds something else.
    """
    model = check_denoiser(resolve_model(model, checkpoint, device, **(dict(ema=True) if ema else {})), [])
    drawn = ImageSampler(model, **options)
    if not starts_from_noise(model, drawn.start):
        drawn.moments = moments_of_data(model, drawn.start, data_root)
    with evaluating(model), autocast(precision, next(model.parameters()).device):
        if out is None:
            parts = list(_batches(drawn, range(num), batch_size, progress))
            labels = drawn.labels_of(range(num))
            return Samples(np.concatenate([images for _, images in parts]), labels and np.array(labels))
        return _to_folder(drawn, num, batch_size, Path(out), force, progress, precision)


def moments_of_data(model: LDAE, t: int, data_root: str | os.PathLike | None) -> Moments:
    """Moments of the latents of the training images that a model's config names, or of others; it says that t needs them."""
    gamma, sigma = float(model.noiser.gamma[t]), float(model.noiser.sigma[t])
    print_log(
        f'moment-matched start: the schedule ends at gamma={gamma:.3g}, sigma={sigma:.3g}, where latents are not noise yet; '
        "samples start from the mean and covariance of the training images' latents, plus noise",
        'current',
    )
    images = images_config(model, None, data_root, None)
    return measure_moments(model, DATASETS.build(images.train_dataloader.dataset))


def _batches(
    drawn: ImageSampler, numbers: Sequence[int], batch_size: int, progress: bool
) -> Iterator[tuple[Sequence[int], np.ndarray]]:
    """Numbers and images, a batch at a time, with a bar."""
    disable = None if progress and is_main_process() else True
    with tqdm(desc='sample', unit='img', total=len(numbers), disable=disable, dynamic_ncols=True) as bar:
        for start in range(0, len(numbers), batch_size):
            part = numbers[start : start + batch_size]
            yield part, drawn(part)
            bar.update(len(part))


def _to_folder(
    drawn: ImageSampler, num: int, batch_size: int, out: Path, force: bool, progress: bool, precision: str | None
) -> Path:
    """Write the images that are missing; each process its share."""
    weights = hash_tensors(hashlib.sha256(), drawn.model).hexdigest()[:16]
    settings = dict(drawn.settings, precision=precision or 'fp32', weights=weights)
    settings['start'] = 'noise' if drawn.moments is None else f'moment-matched, {drawn.moments}'
    with ExitStack() as held:
        with failing_together():
            channels = drawn.model.tokenizer.geometry.in_channels
            folder = SampleFolder(out, settings, channels, drawn.model.shown_bands)
            if is_main_process():
                held.enter_context(folder.held(force))
        missing = from_main_process(folder.missing(num))[get_rank() :: get_world_size()]
        with folder.writing() as write:
            for numbers, images in _batches(drawn, missing, batch_size, progress):
                write(numbers, images)
        barrier()
        if is_main_process():
            folder.finish(num, drawn.labels_of(range(num)))
        barrier()
    return out
