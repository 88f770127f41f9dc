# SPDX-License-Identifier: Apache-2.0
"""A folder of samples: single images, a grid of them, all of them in one file, and how they were made."""

import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ldae.utils import ConfigError, provenance
from ldae.utils.files import whole_file, write_json
from ldae.utils.locks import claimed
from ldae.visualization.tiles import shown, tile

IMAGES, GRID, ARRAYS, SETTINGS = 'images', 'grid.png', 'samples.npz', 'sampling.json'
#: Of images, and of bands.
SUFFIXES = ('.png', '.npy')
#: Images of the grid, at most, and threads that write.
GRID_IMAGES, WRITERS = 64, 4


class SampleFolder:
    """``images/000000.png`` (of other than one or three bands, ``.npy``) and so on, ``grid.png``, ``samples.npz`` (``arr_0`` uint8
    (n, H, W, C), and labels ``arr_1``) and ``sampling.json``.

    Each file is written whole or not at all. Images are kept as long as they are of the same settings.

    Args:
        path: The folder.
        settings: All that decides about the images, as JSON holds it.
        channels: Of the images.
        shown_bands: Of the grid.
    """

    def __init__(
        self, path: Path, settings: dict[str, Any], channels: int = 3, shown_bands: Sequence[int] | None = None
    ) -> None:
        self.path, self.settings, self.shown_bands = path, json.loads(json.dumps(settings)), shown_bands
        self.suffix = SUFFIXES[channels not in (1, 3)]

    @contextmanager
    def held(self, force: bool) -> Iterator[None]:
        """:meth:`open` it, for this process alone."""
        if self.path.is_file():
            raise ConfigError(f'{self.path} is a file: name a folder')
        self.path.mkdir(parents=True, exist_ok=True)
        with claimed(self.path):
            self.open(force)
            yield

    def open(self, force: bool) -> None:
        """Make the folder, or go on with it.

        Raises:
            ConfigError: It holds something else, or images of other settings, unless they may be removed.
        """
        folder = self.path / IMAGES
        if self.path.exists() and (why := self._why_not()):
            if not force:
                raise ConfigError(f'{self.path} {why}: name another folder, or add --force to replace its samples')
            images = [file for suffix in SUFFIXES for file in folder.glob(f'[0-9]*{suffix}')]
            for file in [*images, self.path / GRID, self.path / ARRAYS]:
                file.unlink(missing_ok=True)
        self.path.mkdir(parents=True, exist_ok=True)
        for file in self.path.rglob('.*.unfinished'):
            file.unlink()
        # First of all files: it makes the folder one of samples, which can be gone on with.
        write_json(self.path / SETTINGS, dict(settings=self.settings, versions=provenance.versions()))
        folder.mkdir(exist_ok=True)

    def _why_not(self) -> str | None:
        """Why this folder can't be gone on with."""
        if not (self.path / SETTINGS).is_file():
            if any(not file.name.startswith('.') for file in self.path.iterdir()):
                raise ConfigError(f'{self.path} is not empty, and holds no samples: name another folder')
            return None
        try:
            found = json.loads((self.path / SETTINGS).read_text())['settings']
            differing = [name for name in self.settings if found.get(name) != self.settings[name]]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return f'holds a {SETTINGS} that cannot be read'
        if not differing:
            return None
        shown = ', '.join(f'{name} {found.get(name)!r} (now {self.settings[name]!r})' for name in differing[:3])
        return f'holds samples of other settings: {shown}'

    def file_of(self, number: int) -> Path:
        """Where the image with this number lies."""
        return self.path / IMAGES / f'{number:06d}{self.suffix}'

    def missing(self, num: int) -> list[int]:
        """Numbers, of the first ``num``, of the images that are not there yet."""
        there = {file.name for file in (self.path / IMAGES).glob(f'[0-9]*{self.suffix}')}
        return [number for number in range(num) if self.file_of(number).name not in there]

    @contextmanager
    def writing(self) -> Iterator[Callable[[Sequence[int], np.ndarray], None]]:
        """``write(numbers, images)``, while the next images are computed; they are all written when the context closes."""
        with ThreadPoolExecutor(WRITERS) as pool:
            before: list = []

            def write(numbers: Sequence[int], images: np.ndarray) -> None:
                wait()
                before.extend(
                    pool.submit(save_image, image, self.file_of(i)) for i, image in zip(numbers, images, strict=True)
                )

            def wait() -> None:
                for future in before:
                    future.result()
                before.clear()

            yield write
            wait()

    def finish(self, num: int, labels: Sequence[int] | None) -> None:
        """Write the grid and the file of all images."""
        shape = self._read(0).shape
        save_image(
            grid_of(np.stack([self._read(i, shape) for i in range(min(num, GRID_IMAGES))]), self.shown_bands),
            self.path / GRID,
        )
        path = self.path / ARRAYS
        with whole_file(path) as unfinished, zipfile.ZipFile(unfinished, 'w', allowZip64=True) as archive:
            self._write_images(archive, num, shape)
            if labels is not None:
                with archive.open('arr_1.npy', 'w') as file:
                    np.lib.format.write_array(file, np.array(labels))

    def _write_images(self, archive: zipfile.ZipFile, num: int, shape: tuple[int, ...]) -> None:
        # One by one: they may be more than fits into the memory.
        with archive.open('arr_0.npy', 'w', force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, dict(descr='|u1', fortran_order=False, shape=(num, *shape)))
            for number in range(num):
                file.write(self._read(number, shape).tobytes())

    def _read(self, number: int, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """uint8 (H, W, C), of this shape where one is named."""
        file = self.file_of(number)
        try:
            if self.suffix == '.npy':
                pixels = np.load(file, allow_pickle=False)
            else:
                with Image.open(file) as image:
                    pixels = np.atleast_3d(np.array(image))
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise ConfigError(f'{file} cannot be read: remove it, and it is sampled anew') from error
        if pixels.dtype != np.uint8 or pixels.shape != (shape or pixels.shape):
            raise ConfigError(f'{file} is not one of these samples: remove it, and it is sampled anew')
        return pixels


def grid_of(images: np.ndarray, bands: Sequence[int] | None = None) -> np.ndarray:
    """The first images of uint8 (n, H, W, C) or (n, H, W), some of their bands, in one picture (H', W', 3)."""
    first = torch.from_numpy(images[:GRID_IMAGES])
    first = first.unsqueeze(1) if first.ndim == 3 else first.permute(0, 3, 1, 2)
    return tile(shown(first, bands), round(len(first) ** 0.5))


def save_image(image: np.ndarray, path: Path) -> None:
    """Write uint8 (H, W, 3) or (H, W) as PNG, or any (H, W, C) as ``.npy``, whole or not at all."""
    with whole_file(path) as unfinished, unfinished.open('wb') as file:
        if path.suffix == '.npy':
            np.save(file, image)
        else:
            Image.fromarray(image).save(file, format='png')
