# SPDX-License-Identifier: Apache-2.0
"""Pictures in any form -> uint8 BGR arrays (H, W, 3), as mmcv's pipelines read them."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ldae.datasets.listing import list_images, tell
from ldae.datasets.load_image import MAX_ASPECT, MAX_PIXELS, LoadImage, arrange, suffixes_of
from ldae.datasets.low_shot import spread_over_classes
from ldae.datasets.roots import is_source
from ldae.datasets.sources import open_source
from ldae.utils import ConfigError

PICTURES = LoadImage()
ARRAYS = 'uint8, uint16 (scaled to 8 bits), or floats in [0, 1]'
SHAPES = {
    np.ndarray: '(H, W), (H, W, C) or (B, H, W, C) with C = 1, 3 (RGB) or 4 (RGBA)',
    Tensor: '(H, W), (C, H, W) or (B, C, H, W) with C = 1, 3 (RGB) or 4 (RGBA)',
}


def read_images(images: Any, reader: LoadImage = PICTURES) -> Iterator[np.ndarray]:
    """Each picture of ``images``, in order, one at a time: uint8 BGR (H, W, 3), or what a reader of bands makes of it. Raises
    ConfigError if there is no picture at all, or one that can't be read, with its place.

    Args:
        images: A file, a folder (its files at any depth, sorted), ``wds::``, ``hf::`` or ``csv::`` data, a PIL image, a numpy array (H, W, C) or tensor
            (C, H, W), a batch of those, or any iterable of these, which may be mixed. Channels are RGB; grey is
            repeated, transparency is dropped, an EXIF orientation is obeyed.
        reader: Of files, and of arrays (H, W, C) and (C, H, W) where it is told of ``channels``, with values as files have them.
    """
    number = -1
    for number, (name, image) in enumerate(_flat(images, reader)):
        yield _to_bgr(image, name if isinstance(image, Path) else f'image {number} ({name})', reader)
    if number < 0:
        raise ConfigError('there are no images: the list or generator is empty')


def some_of(images: Any, count: int, reader: LoadImage = PICTURES) -> Any:
    """At most ``count`` of the files that paths name, of different folders, which often are classes, as far as there are;
    anything but paths as it is."""
    paths = [images] if isinstance(images, str | os.PathLike) else images
    if not isinstance(paths, Sequence) or not all(isinstance(path, str | os.PathLike) for path in paths):
        return images
    files = [file for path in paths for file in _files(Path(path).expanduser(), reader)]
    numbers: dict[Path, int] = {}
    folders = torch.tensor([numbers.setdefault(file.parent, len(numbers)) for file in files], dtype=torch.long)
    return [files[number] for number in spread_over_classes(folders, count)]


def _flat(images: Any, reader: LoadImage) -> Iterator[tuple[str, Any]]:
    """The kind of an input, and one picture: a file, a PIL image, an array (H, W[, C]) or a tensor ([C, ]H, W)."""
    if isinstance(images, str | os.PathLike):
        yield from ((str(path), path) for path in _files(Path(images).expanduser(), reader))
    elif isinstance(images, Image.Image):
        yield f'PIL image of mode {images.mode}', images
    elif isinstance(images, np.ndarray | Tensor):
        name = f'{type(images).__name__} of shape {tuple(images.shape)} and type {images.dtype}'
        if images.ndim == 4 and not len(images):
            raise ConfigError(f'{name} holds no images')
        yield from ((name, image) for image in (images if images.ndim == 4 else [images]))
    elif isinstance(images, Iterable) and not isinstance(images, bytes | dict):
        for part in images:
            yield from _flat(part, reader)
    else:
        raise ConfigError(
            f'{type(images).__name__} is not an image: give a path, a PIL image, a numpy array, a tensor, or a list of them'
        )


def _files(path: Path, reader: LoadImage = PICTURES) -> list[Path]:
    if is_source(str(path)):
        return [Path(name) for name in open_source(str(path), 'train', False).paths]
    if not path.is_dir():
        return [path]
    listing = list_images(path, suffixes := suffixes_of(reader.channels))
    if not listing.files:
        raise ConfigError(f'{path} holds no images ({", ".join(suffixes)})')
    if told := listing.left_out():
        tell(told)
    return sorted(path / file for file in listing.files)


def _to_bgr(image: Any, name: str, reader: LoadImage) -> np.ndarray:
    if isinstance(image, Path):
        return reader.read(str(image))
    if reader.channels:
        array = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
        return reader.finish(arrange(array, name, reader.channels), name)
    rgb = (_from_pil if isinstance(image, Image.Image) else _from_array)(image, name)
    height, width = rgb.shape[:2]
    if not height * width:
        raise ConfigError(f'{name} is empty')
    if height * width > MAX_PIXELS or max(height, width) > MAX_ASPECT * min(height, width):
        raise ConfigError(f'{name} has too many pixels, or is too long and narrow: crop or resize it first')
    rgb = rgb.repeat(3, axis=2) if rgb.shape[2] == 1 else rgb[..., :3]
    return np.ascontiguousarray(rgb[..., ::-1])


def _from_pil(image: Image.Image, name: str) -> np.ndarray:
    """RGB (H, W, 3), or grey (H, W, 1) for the modes of 16 bits."""
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith(('I', 'F')):
            pixels = np.asarray(image)
            if image.mode == 'F' or pixels.size and not 0 <= pixels.min() <= pixels.max() <= 65535:
                raise ConfigError(f'{name} has no known range of values: give 8 or 16 bits')
            return _to_uint8(pixels.astype(np.uint16)[..., None], name)
        return np.asarray(image.convert('RGB'))
    except (OSError, SyntaxError) as error:  # Pillow reads a file's pixels when they are needed
        raise ConfigError(f'{name} cannot be read: {" ".join(str(error).split())}') from error


def _from_array(image: np.ndarray | Tensor, name: str) -> np.ndarray:
    """(H, W), (H, W, C) of an array and (C, H, W) of a tensor -> uint8 (H, W, C)."""
    kind = Tensor if isinstance(image, Tensor) else np.ndarray
    if kind is Tensor:
        image = image.detach().cpu()
        image = (image.float() if image.dtype in (torch.bfloat16, torch.float16) else image).numpy()
        image = image.transpose(1, 2, 0) if image.ndim == 3 else image
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise ConfigError(f'{name}: {kind.__name__}s must be {SHAPES[kind]}')
    return _to_uint8(image, name)


def _to_uint8(image: np.ndarray, name: str) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return (image >> 8).astype(np.uint8)  # as OpenCV reads 16 bits
    if not np.issubdtype(image.dtype, np.floating):
        raise ConfigError(f'{name}: values must be {ARRAYS}')
    if not np.isfinite(image).all():
        raise ConfigError(f'{name} holds NaN or infinite values')
    if image.size and not 0 <= image.min() <= image.max() <= 1:
        low, high = float(image.min()), float(image.max())
        raise ConfigError(
            f'{name} has values from {low:.4g} to {high:.4g}, but floats must lie in [0, 1]: divide by 255 if they are '
            'pixels, give pixels as uint8, and undo any normalisation, which the model does itself'
        )
    return np.rint(image.astype(np.float64) * 255).astype(np.uint8)
