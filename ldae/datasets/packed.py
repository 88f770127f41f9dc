# SPDX-License-Identifier: Apache-2.0
"""Images at the size of training, decoded or in small JPEGs, in numpy's own files and read by memory map."""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.dataset import default_collate
from torch.utils.data import Dataset

from ldae.registry import DATASETS, TRANSFORMS
from ldae.utils import Choice, ConfigError, PositiveInt, Seed, checked
from ldae.utils.sizes import height_width, set_size

from .load_image import BadImageError, LoadImage, decode, reads_files
from .low_shot import Fraction, Split, samples_of, subset
from .resize import with_faster_steps
from .store import LABELS, OFFSETS, Count, Kind, Shard, Store, read_manifest, readable

IMAGES, NAMES = 'images.npy', 'names.json'
SETTINGS = dict(
    crop=Annotated[str, Choice('none', 'center')], format=Annotated[str, Choice('uint8', 'jpeg', 'float32')]
)
SETTINGS |= dict(edge=Count | None, size=Count | tuple[Count, Count] | None, with_label=bool, reading=dict | None)
SETTINGS['split'] = str | None
REMEDY = 'remove {part} and run `ldae pack-dataset` again'
PACKED = Kind('packed images', '`ldae pack-dataset`', 'packed.json', REMEDY, SETTINGS, 'images')


def packed_folder(data_root: str | Path, split: str) -> Path | None:
    """Where packed images lie, ``data_root/<split>`` or else ``data_root`` itself, of whatever split; None where none do."""
    root = Path(data_root).expanduser()
    return next((folder for folder in (root / split, root) if (folder / PACKED.manifest).is_file()), None)


def find_packed(data_root: str | Path, split: str) -> Path:
    """The folder of a split that was packed. Raises ConfigError where there is none, or what lies there is another split: images of
    training are no test images."""
    root, folder = Path(data_root).expanduser(), packed_folder(data_root, split)
    if folder is not None:
        found = read_manifest(folder, PACKED)['settings'].get('split') or split
        if found != split:
            raise ConfigError(
                f'{folder} holds packed images of {found!r}, and those of {split!r} are asked for: name the folder above it, where '
                f'{split!r} is packed too, or train with --no-validate'
            )
        return folder
    raise ConfigError(
        f'{root} holds no packed images of {split!r} (no {split}/{PACKED.manifest}): make them with'
        f' `ldae pack-dataset IMAGES --split {split} --out {root}`, or run that to its end'
    )


def packed_pipeline(settings: Mapping[str, Any]) -> list[dict]:
    """The transforms that packing has done to all images, as a config has them."""
    if settings['crop'] == 'none':
        return []
    steps = [resize_edge(settings['edge']), dict(type='CenterCrop', crop_size=settings['size'])]
    for step in steps if isinstance(settings['size'], list | tuple) else ():
        set_size(step, settings['size'])
    return steps


def reading_of(step: Mapping) -> dict[str, Any]:
    """The options of a reader that decide which bands, of which values, it gives; none of one of pictures."""
    names = ('channels', 'bands', 'value_range', 'nodata', 'key')
    return {name: step[name] for name in names if step.get(name) is not None}


def resize_edge(edge: int) -> dict:
    return dict(type='ResizeEdge', scale=edge, edge='short', backend='pillow', interpolation='bicubic')


def remaining(pipeline: Sequence[Mapping], settings: Mapping[str, Any]) -> list[Mapping]:
    """The part of a pipeline that packing has left to do; raise ConfigError if it asks for other images."""
    steps = [dict(step) for step in pipeline]
    if not steps or not reads_files(steps[0]):
        return steps
    done = packed_pipeline(settings)
    asked, was = (json.dumps(reading_of(found)) for found in (steps[0], settings.get('reading') or {}))
    if asked != was:
        raise ConfigError(f'PackedImages: the images were packed with {was}, and LoadImage asks for {asked}')
    if steps[1 : 1 + len(done)] != done:
        raise ConfigError(
            f'PackedImages: the images were packed by {done}, and the pipeline goes on with {steps[1 : 1 + len(done)]}:'
            f' pack them for it (`ldae pack-dataset IMAGES --out DIR {_options_for(steps[1:3])}`), name the folder of unpacked'
            ' ones, or leave LoadImage out to apply the pipeline to the packed images'
        )
    rest = steps[1 + len(done) :]
    return [] if rest == [dict(type='PackInputs')] and settings['crop'] == 'center' else rest


def _options_for(steps: Sequence[Mapping]) -> str:
    """Those of ``ldae pack-dataset`` for a pipeline that goes on with ``steps``."""
    edge = next((step['scale'] for step in steps if 'scale' in step), None)
    size = next((step['crop_size'] for step in steps if 'crop_size' in step), None)
    if isinstance(size, list | tuple):
        return f'--size {size[1]} {size[0]}'
    fits = packed_pipeline(dict(crop='center', edge=edge, size=size)) == list(steps)
    return f'--edge {edge} --size {size}' if fits else '--crop none'


@DATASETS.register_module()
class PackedImages(Dataset):
    """Images that ``ldae pack-dataset`` wrote, with classes or without, served in whole batches.

    A DataLoader needs ``collate_fn=dict(type='ldae.batch_collate')``; what it gets is what a folder of images and the
    pipeline would have given, ``dict(inputs=uint8 (B, C, H, W), data_samples=list[DataSample])``. Raises ConfigError if
    nothing was packed there, a file is missing or cut off, or the pipeline needs other images.

    Args:
        data_root: The folder that was named by ``--out``.
        split: Which part of it: 'train', 'val' or 'test'.
        with_label: Whether samples carry ``gt_label``.
        pipeline: The pipeline for the unpacked images, of which only what packing hasn't done is run; one that doesn't begin
            by loading is applied to the packed images. Empty: none.
        indices: Only the first so many images (int) or those named (sequence).
        fraction: Part of each class's images to keep, above 0 and up to 1, of those that ``indices`` leaves. None: all.
        fraction_seed: Chooses them.
        fast_resize: Resize by torch where the pipeline says Pillow, as in :class:`ImageFolder`.
    """

    @checked
    def __init__(
        self,
        data_root: str,
        split: Split = 'train',
        with_label: bool = True,
        pipeline: Sequence[Mapping] = (),
        indices: PositiveInt | Sequence[int] | None = None,
        fraction: Fraction | None = None,
        fraction_seed: Seed = 0,
        fast_resize: bool = False,
    ) -> None:
        self.data_root, self.split, self.with_label = str(data_root), split, with_label
        self.folder = find_packed(data_root, split)
        store = Store(self.folder, PACKED)
        self.settings, self.shards = store.settings, store.shards
        self._manifest = store.manifest
        if with_label and not self.settings['with_label']:
            raise ConfigError(f'{self.folder} was packed without labels: set with_label=False')
        steps = with_faster_steps(remaining(pipeline, self.settings), by_torch=fast_resize)
        if not steps and self.settings['crop'] == 'none':
            raise ConfigError(f'PackedImages: {self.folder} has images of different sizes: it needs a pipeline')
        self.pipeline = Compose([TRANSFORMS.build(step) for step in steps]) if steps else None
        classes = store.manifest.get('classes')
        self.metainfo = dict(classes=tuple(classes)) if classes else {}
        self._starts = [0, *accumulate(shard['images'] for shard in store.manifest['shards'])]
        self._is_jpeg = self.settings['format'] == 'jpeg'
        size = self.settings.get('size')
        if self.settings['crop'] == 'center' and None in (size, self.settings.get('edge')):
            raise ConfigError(f'{self.folder}: its manifest names no edge or size: {PACKED.fix(self.folder)}')
        #: Of an image that isn't a JPEG, (C, H, W).
        self.shape = (LoadImage(**reading_of(self.settings.get('reading') or {})).num_bands, *height_width(size or 0))
        for shard, told in zip(self.shards, store.manifest['shards'], strict=True):
            count = told['images']
            if with_label:
                shard.checked(LABELS, 'iu', count)
            if self._is_jpeg:
                shard.checked(OFFSETS, 'iu', count + 1)
            kind = 'f' if self.settings['format'] == 'float32' else 'u'
            shard.checked(IMAGES, kind, *((None,) if self._is_jpeg else (count, *self.shape)))
        self.labels = torch.from_numpy(store.whole(LABELS)).long() if with_label else None
        self._keep = subset(self._starts[-1], self.labels, indices, fraction, fraction_seed, 'PackedImages')

    def __len__(self) -> int:
        return self._starts[-1] if self._keep is None else len(self._keep)

    @property
    def identity(self) -> tuple[str, ...]:
        """For keys of caches: what was packed, and which of it is kept."""
        manifest = json.dumps(self._manifest, sort_keys=True).encode()
        return hashlib.sha256(manifest).hexdigest(), '' if self._keep is None else str(self._keep.tolist())

    def _numbers(self, indices: Sequence[int]) -> list[int]:
        if self._keep is not None:
            return self._keep[list(indices)].tolist()
        return [range(self._starts[-1])[i] for i in indices]  # as any sequence: negative ones, IndexError

    def _place(self, number: int) -> tuple[Shard, int]:
        shard = bisect_right(self._starts, number) - 1
        return self.shards[shard], number - self._starts[shard]

    def _stored(self, number: int) -> np.ndarray:
        """BGR, or bands, (C, H, W); or uint8 (H, W, 3) where it was a JPEG."""
        shard, row = self._place(number)
        images = shard[IMAGES]
        if images.ndim > 1:
            return images[row]
        first, last = shard[OFFSETS][row : row + 2]
        try:
            return decode(images[first:last].tobytes(), f'{shard.folder}, image {row},')
        except BadImageError as error:
            raise ConfigError(f'{error}: check with `ldae pack-dataset --verify`') from error

    def name(self, index: int) -> str:
        """The file that an image came from, relative to the folder that was packed."""
        shard, row = self._place(self._numbers([index])[0])
        with readable(path := shard.folder / NAMES, PACKED.fix(self.folder)):
            return str(json.loads(path.read_text())[row])

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> dict:
        """The batch at ``indices``."""
        if self.pipeline is not None:
            return default_collate([self._transformed(i) for i in indices])  # Draws seed each as it comes
        numbers = self._numbers(indices[:])
        dtype = torch.float32 if self.settings['format'] == 'float32' else torch.uint8
        inputs = torch.empty(len(numbers), *self.shape, dtype=dtype)
        for planes, number in zip(inputs.numpy(), numbers, strict=True):
            stored = self._stored(number)
            if self._is_jpeg:
                cv2.split(stored, list(planes))
            else:
                planes[:] = stored
        labels = None if self.labels is None else self.labels[numbers]
        return dict(inputs=inputs, data_samples=samples_of(indices[:], labels))

    def _transformed(self, index: int) -> dict:
        number = self._numbers([index])[0]
        image = self._stored(number)
        image = image if self._is_jpeg else image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        results = dict(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2], sample_idx=index)
        if self.labels is not None:
            results['gt_label'] = int(self.labels[number])
        return self.pipeline(results)
