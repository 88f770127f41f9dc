# SPDX-License-Identifier: Apache-2.0
"""Sets of images that are compared: a folder, an array in a file, the data set of a config."""

import hashlib
import json
import math
import os
import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope, init_default_scope
from torch import Tensor
from torch.utils.data import Subset

from ldae.apis.images import read_images
from ldae.apis.models import load_config_of
from ldae.apis.probing import tell_of_own_images
from ldae.config import find_config, load_config
from ldae.config.packed import use_packed_data
from ldae.config.reading import gives_bgr, pipeline_of
from ldae.datasets.listing import list_images, listing_key, tell
from ldae.datasets.load_image import MAX_PIXELS, reads_files
from ldae.datasets.packed import packed_pipeline
from ldae.datasets.roots import is_source, parse_root
from ldae.datasets.sources import open_source
from ldae.evaluation.probe_data import labelled_dataloader
from ldae.registry import DATASETS, TRANSFORMS
from ldae.utils import ConfigError
from ldae.utils.errors import short

from .folder import IMAGES, SETTINGS
from .statistics import UNREADABLE, Statistics

SPLITS = dict(train=('train_dataloader',), val=('val_dataloader', 'test_dataloader'))


class ImageSet:
    """Some or all of a number of images, as uint8 RGB arrays (H, W, 3), a batch at a time, and what they are.

    Args:
        name: Where they come from.
        kind: What they are kept as: PNG files, an array, a data set.
        total: How many there are.
        stream: Gives those of ascending numbers, as uint8 arrays (H, W, 1 or 3), RGB.
        made_from: What tells them from other images that have the same name: anything that JSON holds.
    """

    def __init__(
        self, name: str, kind: str, total: int, stream: Callable[[Sequence[int]], Iterator[np.ndarray]], made_from: Any
    ) -> None:
        self.name, self.kind, self.total, self.stream, self.made_from = name, kind, total, stream, made_from
        self.numbers: Sequence[int] = range(total)
        self.seed: int | None = None
        self.crop: int | None = None
        self.size: tuple[int, int] | None = None
        self.resized = 0

    def choose(self, num: int | None, seed: int, option: str) -> None:
        """Leave ``num`` of the images, at random."""
        if num is None:
            return
        if num > self.total:
            raise ConfigError(f'{option} {num:,}: {self.name} has {self.total:,} images')
        if num < self.total:
            order = torch.randperm(self.total, generator=torch.Generator().manual_seed(seed))
            self.numbers, self.seed = order[:num].sort().values.tolist(), seed

    def __len__(self) -> int:
        return len(self.numbers)

    def batches(self, batch_size: int) -> Iterator[list[np.ndarray]]:
        images = self.stream(self.numbers)
        while batch := [self._prepared(image) for image in islice(images, batch_size)]:
            yield batch

    def _prepared(self, image: np.ndarray) -> np.ndarray:
        image = image.repeat(3, axis=2) if image.shape[2] == 1 else image
        if self.crop is not None and image.shape[:2] != (self.crop, self.crop):
            image, self.resized = _centre_crop(self.crop)(dict(img=image))['img'], self.resized + 1
        self.size = self.size or image.shape[:2]
        if image.shape[:2] != self.size:
            (height, width), other = self.size, ' x '.join(map(str, image.shape[:2]))
            raise ConfigError(
                f'{self.name} has images of {height} x {width} and of {other} pixels: --size N resizes the short edge of '
                'each and crops the centre, N x N'
            )
        return image

    def protocol(self) -> dict[str, Any]:
        """How they are read: printed, and kept beside figures."""
        how = f'{self.resized:,} resized, bicubic, and cropped to {self.crop} x {self.crop}' if self.resized else None
        told = dict(source=self.name, kind=self.kind, images=len(self), of=self.total, seed=self.seed)
        return dict(told, size=self.size, resized=how)

    def key(self) -> str:
        """A hash of what decides about the pixels."""
        words = [self.name, self.made_from, len(self), self.total, self.seed, self.crop]
        return hashlib.sha256(json.dumps(words, default=str).encode()).hexdigest()[:16]


@cache
def _centre_crop(size: int) -> Compose:
    """As configs prepare test images: the short edge is resized, bicubic, then the centre is cropped."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        steps = packed_pipeline(dict(crop='center', edge=size, size=size))
        return Compose([TRANSFORMS.build(step) for step in steps])


def open_images(source: Any, workers: int = 2, **options: Any) -> ImageSet | Statistics:
    """The images or statistics that ``source`` names.

    Args:
        source: A folder of images, or ``wds::``, ``hf::`` or ``csv::`` data; an ``.npz`` file of images (``arr_0``, uint8, (n, H, W, C) or (n, H, W)) or of statistics;
            a config, or a checkpoint that holds one, with ``:train`` or ``:val`` after it; an array, tensor or list of images.
        workers: Threads that decode files.
        **options: ``scale``, ``cfg_options`` and ``data_root`` of a config.

    Raises:
        ConfigError: It is none of them, or holds no images.
    """
    if not isinstance(source, str | os.PathLike):
        return _given(source)
    path = Path(source).expanduser()
    if path.is_dir():
        written_by_us = (path / SETTINGS).is_file()  # with a picture of all beside the images
        return _folder(path / IMAGES if written_by_us else path, workers)
    if path.suffix == '.npz':
        return _npz(path)
    if is_source(source):
        found = open_source(source, 'train', False)
        return ImageSet(
            source, f'{parse_root(source).kind}::', len(found.paths), _decoded(found.paths, workers), found.identity
        )
    name, _, split = str(source).rpartition(':')
    name, split = (name, split) if split in SPLITS else (str(source), 'train')
    if name.endswith('.pth'):
        cfg = load_config(load_config_of(name), **options)
        if options.get('data_root') is None:
            tell_of_own_images(cfg)
        return images_of_config(f'{name}, {split}', cfg, split)
    try:
        find_config(name)
    except ConfigError as error:
        raise ConfigError(f'{source} is neither a folder of images nor an .npz file; as a config: {error}') from error
    return images_of_config(f'{name}, {split}', load_config(name, **options), split)


def _folder(folder: Path, workers: int) -> ImageSet:
    listing = list_images(folder)
    if not listing.files:
        raise ConfigError(f'{folder} holds no images')
    if told := listing.left_out():
        tell(told)
    files = [folder / name for name in listing.files]
    kinds = sorted({file.suffix.lower().lstrip('.').replace('jpg', 'jpeg').upper() for file in files})
    stats = ((file, status.st_size, status.st_mtime_ns) for file in files for status in [file.stat()])
    made_from = hashlib.sha256(repr([(str(file.absolute()), *rest) for file, *rest in stats]).encode()).hexdigest()
    return ImageSet(str(folder), f'{", ".join(kinds)} files', len(files), _decoded(files, workers), made_from)


def _decoded(files: Sequence[str | Path], workers: int) -> Callable[[Sequence[int]], Iterator[np.ndarray]]:
    """A function that gives those of some numbers, decoded by threads."""

    def stream(numbers: Sequence[int]) -> Iterator[np.ndarray]:
        waiting: deque = deque()
        with ThreadPoolExecutor(workers) as pool:
            for number in numbers:
                waiting.append(pool.submit(lambda file: next(read_images(file))[..., ::-1], files[number]))
                if len(waiting) > 32 * workers:
                    yield waiting.popleft().result()
            yield from (future.result() for future in waiting)

    return stream


def _npz(path: Path) -> ImageSet | Statistics:
    if not path.is_file():
        raise ConfigError(f'{path} does not exist')
    try:
        with zipfile.ZipFile(path) as archive:
            if 'mu.npy' in archive.namelist():
                return Statistics.load(path)
            with archive.open('arr_0.npy') as member:
                shape, fortran, dtype = _header(member)
    except ConfigError:
        raise
    except UNREADABLE as error:
        raise ConfigError(
            f'{path} holds neither images (arr_0) nor statistics (mu, sigma) of features ({short(error)})'
        ) from error
    if len(shape) == 3:
        shape = (*shape, 1)
    fits = len(shape) == 4 and shape[3] in (1, 3) and 0 not in shape and shape[1] * shape[2] <= MAX_PIXELS
    if dtype != np.uint8 or fortran or not fits:
        raise ConfigError(f'{path}: arr_0 must be uint8 images (n, H, W, C) with C = 1 or 3, got {dtype} {shape}')
    status = path.stat()

    def stream(numbers: Sequence[int]) -> Iterator[np.ndarray]:
        length, at = math.prod(shape[1:]), 0
        try:
            with zipfile.ZipFile(path) as archive, archive.open('arr_0.npy') as member:
                _header(member)
                for number in numbers:
                    member.seek((number - at) * length, os.SEEK_CUR)
                    yield np.frombuffer(member.read(length), np.uint8).reshape(shape[1:])
                    at = number + 1
        except UNREADABLE as error:
            raise ConfigError(f'{path} is damaged ({short(error)}): make it anew') from error

    made_from = [str(path.absolute()), status.st_size, status.st_mtime_ns]
    return ImageSet(str(path), 'an array', shape[0], stream, made_from)


def _header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type of an array in a file, of which nothing else is read."""
    first = np.lib.format.read_magic(member) == (1, 0)
    return (np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0)(member)


def _given(images: Any) -> ImageSet:
    """Images in memory."""
    if isinstance(images, np.ndarray) and images.ndim == 3:
        images = images[..., None]
    if isinstance(images, Tensor) and images.ndim == 3:
        images = images.unsqueeze(1)
    if not isinstance(images, Sequence | np.ndarray | Tensor) or not len(images):
        raise ConfigError(f'{type(images).__name__} is not a set of images: give a folder, a file, an array or a list')

    def stream(numbers: Sequence[int]) -> Iterator[np.ndarray]:
        return (image[..., ::-1] for number in numbers for image in read_images([images[number]]))

    return ImageSet(f'{len(images):,} images in memory', type(images).__name__, len(images), stream, None)


def images_of_config(name: str, cfg: Config, split: str) -> ImageSet:
    """The images of a config's data set as its test images are prepared: no augmentation."""
    use_packed_data(cfg)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    loader = next((cfg[key] for key in SPLITS[split] if cfg.get(key)), None)
    if loader is None:
        raise ConfigError(f'{name}: the config names no such images')
    dataset = node = loader.dataset.to_dict()
    while 'pipeline' not in node and isinstance(node.get('dataset'), dict):
        node = node['dataset']
    for option in ('crop_scale', 'flip', 'views'):
        node.pop(option, None)
    steps = pipeline_of(cfg, SPLITS['val'])
    if node.get('pipeline'):
        if not steps:
            raise ConfigError(f'{name}: the config has no pipeline of test images to prepare by: name their folder')
        node['pipeline'] = steps
    built = DATASETS.build(dataset)
    bgr = gives_bgr(cfg)

    def stream(numbers: Sequence[int]) -> Iterator[np.ndarray]:
        part = built if len(numbers) == len(built) else Subset(built, numbers)
        for batch in labelled_dataloader(dict(loader, dataset=part), None):
            for image in batch['inputs']:
                if image.dtype != torch.uint8 or image.ndim != 3:
                    shown = f'{image.dtype} {tuple(image.shape)}'
                    raise ConfigError(f'{name}: {type(built).__name__} gives {shown}, not images')
                array = image.permute(1, 2, 0).numpy()
                yield array[..., ::-1] if bgr else array

    return ImageSet(
        name,
        _in_words(node),
        len(built),
        stream,
        [dataset, bgr, str(getattr(built, 'data_root', None)), listing_key(built)],
    )


def _in_words(dataset: dict) -> str:
    """A data set's type, its options that are short, and the steps of its pipeline."""
    shown = [f'{key}={value}' for key, value in dataset.items() if isinstance(value, int | str) and key != 'type']
    steps = [step for step in dataset.get('pipeline') or () if not reads_files(step)]
    sizes = [(step['type'], step.get('scale', step.get('crop_size'))) for step in steps]
    done = ', '.join(f'{kind} {size}' for kind, size in sizes if size is not None)
    return f'{dataset["type"]}({", ".join(shown)})' + (f', {done}' if done else ', no crop')
