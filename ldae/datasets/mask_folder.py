# SPDX-License-Identifier: Apache-2.0
"""Images with a class for each of their pixels: ``images/<split>`` and, of the same names, ``masks/<split>``."""

import io
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from mmpretrain.structures import DataSample
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ldae.utils import ConfigError
from ldae.utils.errors import short

from .listing import list_images
from .load_image import LoadImage, check_image, read_file, suffixes_of
from .resize import resize
from .roots import is_source

#: More values than that are not classes: a mask that was resized smoothly, or saved as a photograph, has them.
MAX_CLASSES = 1000


class MaskFolder(Dataset):
    """Pairs of images and masks; a sample is the whole image at the size that an encoder takes, uint8 (C, H, W), grey or RGB, or bands.

    Masks are PNGs of class numbers, grey or with a palette. ``values`` are the classes that occur, but for ``ignore``.
    Raises ConfigError for a folder, image or mask that is missing, a mask of another size than its image, or without
    classes: colours, or more values than :data:`MAX_CLASSES`.

    Args:
        root: The folder.
        split: 'train' or 'val'.
        size: Height and width.
        channels: 1 or 3, of pictures.
        ignore: The value of pixels that don't count.
        num_classes: Values lie below it; None takes any.
        limit: So many images at most, chosen at random, the same each time.
        reader: Of images; None reads pictures.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        split: str,
        size: Sequence[int],
        channels: int = 3,
        ignore: int | None = 255,
        num_classes: int | None = None,
        limit: int | None = None,
        reader: LoadImage | None = None,
    ) -> None:
        if is_source(root):
            raise ConfigError(
                f'{root}: masks are read from folders, images/<split> and masks/<split>: name one of these'
            )
        self.folders = [Path(root) / kind / split for kind in ('images', 'masks')]
        self.size, self.channels, self.ignore, self.num_classes = tuple(size), channels, ignore, num_classes
        self.reader = reader or LoadImage()
        self.files = _pairs(*self.folders, suffixes_of(self.reader.channels))
        if limit is not None and len(self.files) > limit:
            order = torch.randperm(len(self.files), generator=torch.Generator().manual_seed(0))[:limit]
            self.files = [self.files[i] for i in order.sort().values.tolist()]
        counts: dict[int, int] = {}
        for number in range(len(self)):
            for value, count in zip(*np.unique(self._read(number), return_counts=True), strict=True):
                counts[int(value)] = counts.get(int(value), 0) + int(count)
            if len(counts) > MAX_CLASSES:
                raise ConfigError(
                    f'{self.folders[1]} has more than {MAX_CLASSES} values: masks hold a class number for each pixel'
                )
        counts.pop(ignore, None)
        if len(counts) < 2:
            raise ConfigError(f'{self.folders[1]} has {len(counts)} class beside ignore={ignore}: there must be two')
        self.values = sorted(counts)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> dict:
        path = str(self.folders[0] / self.files[number][0])
        image, mask = self.reader.read(path), self._read(number)
        if image.shape[:2] != mask.shape:
            sizes = ' and '.join(f'{width} x {height}' for height, width in (image.shape[:2], mask.shape))
            raise ConfigError(f'{path} and its mask {self.files[number][1]} have different sizes, {sizes}')
        if self.reader.channels:  # in the order of a model that takes RGB
            image = np.atleast_3d(resize(image, self.size[::-1]))
            inputs = torch.from_numpy(image[..., :: -1 if image.shape[2] == 3 else 1].copy()).permute(2, 0, 1)
            return dict(inputs=inputs, data_samples=DataSample().set_gt_label(0))
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY if self.channels == 1 else cv2.COLOR_BGR2RGB)
        shrinks = image.shape[0] > self.size[0]
        image = cv2.resize(image, self.size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        inputs = torch.from_numpy(image).view(*self.size, self.channels).permute(2, 0, 1)
        return dict(inputs=inputs, data_samples=DataSample().set_gt_label(0))

    def mask(self, number: int, values: Sequence[int], size: Sequence[int] | None = None) -> Tensor:
        """The mask of an image (H, W), each class by its place among ``values``, the rest -1; at another size, the nearest
        pixels'."""
        found = self._read(number)
        if size is not None:
            found = cv2.resize(found, tuple(size)[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        table = np.full(max(*values, int(found.max())) + 1, -1, np.int64)
        table[list(values)] = range(len(values))
        return torch.from_numpy(table[found])

    def check_values(self, known: Sequence[int]) -> None:
        """Raise ConfigError for a class that is not among those of training."""
        if stray := sorted(set(self.values) - set(known)):
            raise ConfigError(
                f'{self.folders[1]} has class {", ".join(map(str, stray[:5]))}, which no training mask has'
            )

    def _read(self, number: int) -> np.ndarray:
        path = str(self.folders[1] / self.files[number][1])
        data, _ = check_image(read_file(path), path)
        try:
            with Image.open(io.BytesIO(data), formats=['PNG']) as image:
                mode, mask = image.mode, np.asarray(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise ConfigError(f'{path} cannot be read as a PNG ({short(error)})') from error
        if mask.ndim != 2:
            raise ConfigError(f'{path} has colours ({mode}): a mask holds class numbers, grey or with a palette')
        mask = mask.astype(np.int32)
        stray = [v for v in np.unique(mask).tolist() if v != self.ignore and v >= (self.num_classes or np.inf)]
        if stray:
            raise ConfigError(f'{path} has value {stray[0]}, but there are {self.num_classes} classes, from 0')
        return mask.astype(np.uint16)


def _pairs(images: Path, masks: Path, suffixes: Sequence[str]) -> list[tuple[str, str]]:
    """Image and mask of each name."""
    found = []
    for folder, known in ((images, suffixes), (masks, ('.png',))):
        if not folder.is_dir():
            raise ConfigError(f'{folder} is not a folder: masks/<split>/NAME.png belong to images/<split>/NAME.jpg')
        files = list_images(folder, known).files
        found.append({str(Path(file).with_suffix('')): file for file in files})
        if len(found[-1]) < len(files):
            raise ConfigError(f'{folder} has several files of one name, but for the suffix: which one is meant?')
    for one, other, what in ((0, 1, 'mask'), (1, 0, 'image')):
        if missing := sorted(set(found[one]) - set(found[other])):
            folder = (images, masks)[one]
            raise ConfigError(f'{len(missing)} files have no {what}: {folder / found[one][missing[0]]} is the first')
    if not found[0]:
        raise ConfigError(f'{images} holds no images')
    return [(found[0][name], found[1][name]) for name in sorted(found[0])]
