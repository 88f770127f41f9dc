# SPDX-License-Identifier: Apache-2.0
"""A config's images: their size and patches, the bands that are read, the scale of their values, and their mean and deviation."""

import copy
import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.registry import init_default_scope

from ldae.datasets.load_image import READERS, LoadImage
from ldae.registry import DATASETS
from ldae.utils import Choice, ConfigError, NaturalInt, PositiveInt, checked
from ldae.utils.rng import preserved_rng, seed_cpu
from ldae.utils.sizes import Size, as_size, height_width, in_words, set_size

from .data import scale_pipelines
from .methods import arch_of, geometry_of, method_of, size_method
from .packed import use_packed_data
from .reading import LOADERS, walk_dicts

SELF_SUP = 'SelfSupDataPreprocessor'
#: Training images that mean and deviation are measured on, at most.
MEASURED = 500


@checked
def fit_images(
    cfg: Config,
    img_size: Size | None = None,
    patch_size: PositiveInt | None = None,
    divide: Annotated[str, Choice('pad', 'crop')] | None = None,
    channels: PositiveInt | None = None,
    bands: Sequence[NaturalInt] | None = None,
    value_range: tuple[float, float] | None = None,
    nodata: float | None = None,
    key: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    shown_bands: Sequence[NaturalInt] | None = None,
) -> None:
    """Change a config in place, model and pipelines alike; None leaves things as they are. Raises ConfigError for what doesn't fit.

    Args:
        img_size: Of what is cut out of each image, one number or (height, width).
        patch_size: Of the model.
        divide: Where patches don't divide ``img_size``: ``'pad'`` continues images by their last row and column, right and below,
            ``'crop'`` cuts out less.
        channels, bands, value_range, nodata, key: Of :class:`ldae.LoadImage`.
        mean, std: Of each band that is kept: of the files' values with ``value_range``, else of 0 to 255. None: measured on
            training images, where ``channels`` is given.
        shown_bands: Channels of the model, one or three, that pictures show.
    """
    reading = dict(channels=channels, bands=bands, value_range=value_range, nodata=nodata, key=key)
    reading = {name: value for name, value in reading.items() if value is not None}
    reader = LoadImage(**reading)  # which says what is wrong with them
    if img_size or patch_size or channels:
        old_size, old_patch, old_channels = geometry_of(cfg)
        size, patch = img_size or old_size, patch_size or old_patch
        whole = _whole(size, patch, divide)
        _fit_model(cfg, whole, patch, reader.num_bands if channels else old_channels)
        scale_pipelines(cfg, as_size(size))
        for pipeline in [cfg[name].dataset.get('pipeline') for name in LOADERS if cfg.get(name)]:
            if pipeline:
                _fit_pipeline(pipeline, size, whole, reading)
    if shown_bands is not None:
        if method_of(cfg) != 'ldae':
            raise ConfigError('--show-bands is of the pictures that an l-DAE draws, and this model draws none')
        cfg.model.shown_bands = list(shown_bands)
    if channels:
        _normalise(cfg, reader, mean, std)
    elif mean or std:
        raise ConfigError(
            '--mean and --std are of the bands that --channels tells of: give it, or data_preprocessor.mean'
        )


def _whole(size: int | Sequence[int], patch: int, divide: str | None) -> int | tuple[int, int]:
    """The size in whole patches."""
    rest = [edge % patch for edge in height_width(size)]
    if any(rest) and divide is None:
        raise ConfigError(
            f'--img-size {in_words(size)} is not a multiple of the patch size, {patch}: give one that is, or --divide pad or crop'
        )
    rounded = math.ceil if divide == 'pad' else math.floor
    whole = as_size([rounded(edge / patch) * patch for edge in height_width(size)])
    if not min(height_width(whole)):
        raise ConfigError(f'--img-size {in_words(size)} is less than a patch of {patch} pixels: lower --patch-size')
    return whole


def _fit_model(cfg: Config, size: int | tuple[int, int], patch: int, channels: int) -> None:
    geometry = dict(img_size=size, patch_size=patch, in_channels=channels)
    if method_of(cfg) not in (None, 'ldae'):
        _, sizes = arch_of(cfg.model.backbone)
        size_method(cfg, ConfigDict(sizes), **geometry)
        return
    for node in [node for node in walk_dicts(cfg.model) if 'img_size' in node] or [cfg.model.backbone]:
        node.update(geometry)


def _fit_pipeline(pipeline: list, size: int | Sequence[int], whole: int | tuple[int, int], reading: dict) -> None:
    if reading:
        set_reading(pipeline, reading)
    pipeline[:] = [step for step in pipeline if step.get('type') != 'Pad']
    edges = height_width(size)
    if height_width(whole) == edges:
        return
    if min(height_width(whole)) < min(edges):
        for step in walk_dicts(pipeline):
            if 'Crop' in str(step.get('type')):
                set_size(step, whole)
    elif any(step.get('type') == 'MultiView' for step in pipeline):
        raise ConfigError('--divide pad is not for several views of an image: take --divide crop')
    else:
        pad = dict(type='Pad', padding_mode='edge', size=height_width(whole)[::-1])
        pipeline.insert(len(pipeline) - (pipeline[-1].get('type', '').endswith('PackInputs')), ConfigDict(pad))


def set_reading(pipeline: list, reading: dict) -> None:
    """Let a pipeline read bands, by options of :class:`ldae.LoadImage`."""
    for step in walk_dicts(pipeline):
        if str(step.get('type')).rpartition('.')[2] in READERS:
            kept = {name: step[name] for name in ('max_pixels', 'backend_args') if name in step}
            step.clear()
            step.update(type='ldae.LoadImage', **kept, **reading)


def _normalise(cfg: Config, reader: LoadImage, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    """Set mean and deviation of the bands in the data preprocessor, in values of 0 to 255."""
    count = reader.num_bands
    owner = cfg if cfg.get('data_preprocessor') else cfg.model
    preprocessor = owner.setdefault('data_preprocessor', ConfigDict())
    if mean is None and std is None:
        mean, std = measure(cfg)
        mean, std = (values[:: -1 if count == 3 else 1] for values in (mean, std))
        shown = '; '.join(
            f'{name} ' + ', '.join(f'{value:.4g}' for value in values)
            for name, values in (('mean', mean), ('std', std))
        )
        print_log(f'Values of 0 to 255, measured on training images: {shown}', 'current')
    else:
        low, high = reader.value_range or (0, 255)
        if mean is None or std is None or not len(mean) == len(std) == count:
            raise ConfigError(f'--mean and --std must be given together, a number for each of {count} bands')
        mean, std = (
            [(value - start) * 255 / (high - low) for value in values] for values, start in ((mean, low), (std, 0))
        )
    if not min(std) > 0:
        raise ConfigError(f'band {int(np.argmin(std))} has one value everywhere: leave it out (--bands)')
    preprocessor.update(mean=list(mean), std=list(std), to_rgb=count == 3)
    if count not in (1, 3) and preprocessor.get('type', SELF_SUP) == SELF_SUP:
        preprocessor.type = 'ldae.BandsPreprocessor'
    for other in ('bgr_to_rgb', 'rgb_to_bgr'):
        preprocessor.pop(other, None)


def measure(cfg: Config) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel of training images as their pipeline gives them, of :data:`MEASURED` at most."""
    use_packed_data(cfg)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    dataset = DATASETS.build(copy.deepcopy(cfg.train_dataloader.dataset))
    getattr(dataset, 'look', list)()
    sums = []
    with preserved_rng():
        seed_cpu(0)
        for number in np.random.permutation(len(dataset))[:MEASURED].tolist():
            image = dataset[number]['inputs']
            image = image[0] if isinstance(image, list) or image.dim() == 4 else image
            values = image.flatten(1).double()
            sums.append((values.mean(1), values.square().mean(1)))
    mean, square = (np.mean([pair[i].numpy() for pair in sums], axis=0) for i in (0, 1))
    return mean.round(4).tolist(), np.sqrt(np.maximum(square - mean**2, 0)).round(4).tolist()
