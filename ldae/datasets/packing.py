# SPDX-License-Identifier: Apache-2.0
"""Write the images of a folder at the size of training into shards, in several processes, and check them."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from mmcv.transforms import Compose
from tqdm import tqdm

from ldae.registry import TRANSFORMS
from ldae.utils import Choice, ConfigError, PositiveInt, Range, check_range, checked
from ldae.utils.files import write_json
from ldae.utils.sizes import Size, height_width

from .image_folder import ImageFolder, describe_bad
from .load_image import BadImageError
from .packed import IMAGES, NAMES, PACKED, packed_pipeline, resize_edge
from .resize import with_faster_steps
from .store import LABELS, OFFSETS, ArrayFile, damaged_files, entries_of, new_shard, shard_name, write_manifest
from .workers import forked_pool

PLAN = 'plan.json'


@checked
@dataclass(frozen=True)
class PackOptions:
    """How images are packed.

    Args:
        crop: 'center': the centre-crop protocol, squares of ``size``. 'none': whole images, for random crops.
        edge: Length of the short edge after resizing (Pillow, bicubic); with 'none', smaller images stay as they are.
        size: Of the centre crop, at most ``edge``; or (height, width), which images are resized to cover.
        format: 'uint8', 'jpeg', or 'float32' for values that are scaled; images of different sizes must be 'jpeg'.
        quality: Of the JPEGs, 1 to 100.
        shard_size: Images a shard.
        reading: Options of :class:`LoadImage` that the data set reads by, of bands.
    """

    crop: Annotated[str, Choice('center', 'none')] = 'center'
    edge: Annotated[int, Range(8)] = 256
    size: Size | None = None
    format: Annotated[str, Choice('uint8', 'jpeg', 'float32')] = 'uint8'
    quality: Annotated[int, Range(1, 100)] = 95
    shard_size: PositiveInt = 4096
    reading: dict | None = None

    def __post_init__(self) -> None:
        if self.crop == 'none' and (self.format != 'jpeg' or self.size is not None):
            raise ConfigError("crop='none' keeps images of different sizes: it needs format='jpeg' and no size")
        if self.reading and self.format == 'jpeg':
            raise ConfigError(
                "format='jpeg' holds pictures, not bands as they are: take uint8 or float32, and crop='center'"
            )
        for edge in () if self.size is None else height_width(self.size):
            check_range('size', edge, 8, self.edge if isinstance(self.size, int) else 1 << 16, kind=int)

    def settings(self, dataset: ImageFolder) -> dict[str, Any]:
        """All that decides what is written; a pack is resumed only if it is the same."""
        digest = hashlib.sha256()
        for index in range(len(dataset)):
            digest.update('{} {}\n'.format(*_entry(dataset, index)).encode(errors='surrogateescape'))
        size = dict(size=self.size or self.edge) if self.crop == 'center' else {}
        found = dict(split=dataset.split, with_label=dataset.with_label, images=len(dataset), files=digest.hexdigest())
        return json.loads(json.dumps(vars(self) | size | found))


def _entry(dataset: ImageFolder, index: int) -> tuple[str, int | None]:
    info = dataset.get_data_info(index)
    return dataset.name_of(info['img_path']), info.get('gt_label')


def pack(
    dataset: ImageFolder,
    folder: Path,
    options: PackOptions,
    num_workers: int = 1,
    force: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Write the shards of ``folder`` that aren't there yet, then its manifest, which is returned.

    A shard gets its name once it is whole and on the disk; after a kill, the same call goes on with those that lack.
    Raises ConfigError if ``folder`` holds something else, is finished or was begun with other settings; if more images
    than ``dataset.max_bad`` can't be read; if the disk is full, or a process died."""
    check_range('num_workers', num_workers, 1, kind=int)
    settings = options.settings(dataset)
    if folder.exists() and not (folder / PLAN).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f'{folder} exists and is not a packed data set: name another folder')
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        _prepare(folder, settings, force)
        count = -(-len(dataset) // options.shard_size)
        todo = [number for number in range(count) if not (folder / shard_name(number)).is_dir()]
        if not todo and (folder / PACKED.manifest).is_file():
            raise ConfigError(f'{folder} is packed already: pass --force to write it again, or --verify to check it')
        _write_shards(dataset, folder, settings, todo, num_workers, progress)
        shards = entries_of(folder, PACKED, count, skipped=list[tuple[str, str]])
        skipped = {name: reason for shard in shards for name, reason in shard['skipped']}
        if len(skipped) > dataset.max_bad * len(dataset):
            raise ConfigError(
                f'{dataset.img_prefix}: {describe_bad(skipped, len(dataset))}, first {min(skipped)}: more than'
                f' max_bad={dataset.max_bad:g}; run it again with a higher --max-bad, which packs nothing twice'
            )
        classes = list(dataset.CLASSES or ()) if settings['with_label'] else []
        return write_manifest(folder, PACKED, settings, shards, classes=classes)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep others from writing there, for as long as a worker lives, which holds the lock as well."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise ConfigError(f'{folder}: another process is packing into it; wait for its end') from error
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(handle)


def _prepare(folder: Path, settings: dict, force: bool) -> None:
    """Begin, or go on with what was begun by the same settings."""
    plan = folder / PLAN
    if force and plan.is_file():
        _remove(folder)
    if not plan.is_file():
        write_json(plan, settings)
    try:
        begun = json.loads(plan.read_text())
        differ = [key for key in settings if json.dumps(begun.get(key)) != json.dumps(settings[key])]
    except (ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(f'{plan} cannot be read: pass --force to begin anew') from error
    if differ:
        was, now = ({key: values.get(key) for key in differ[:3]} for values in (begun, settings))
        raise ConfigError(f'{folder} was begun with {was}, not {now}: pass --force to begin anew')


def _remove(folder: Path) -> None:
    """Remove what a pack wrote, and nothing else; the plan last, since it says that the rest may go."""
    shards = [*folder.glob('shard-*'), *folder.glob('.shard-*.unfinished')]
    for path in [folder / PACKED.manifest, *shards, folder / PLAN]:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


class _Progress:
    """The number of images done, in memory that the workers share; negative once they shall stop."""

    def __init__(self) -> None:
        self._count, self._parent = get_context('fork').Value('q', 0), os.getpid()

    def advance(self, images: int = 1) -> None:
        if os.getppid() != self._parent:
            os._exit(1)  # the main process was killed, and whoever starts it again writes this shard
        with self._count.get_lock():
            if self._count.value < 0:
                raise InterruptedError('packing was stopped')
            self._count.value += images

    def stop(self) -> None:
        with self._count.get_lock():
            self._count.value = -1

    @property
    def done(self) -> int:
        return self._count.value


#: A worker's, inherited: the list of images is not sent with each shard.
_job: tuple[ImageFolder, Path, dict, _Progress]


def _start_worker(*job: Any) -> None:
    global _job
    _job = job


def _write_shards(
    dataset: ImageFolder, folder: Path, settings: dict, todo: Sequence[int], num_workers: int, progress: bool
) -> None:
    images = sum(len(_images_of(number, settings)) for number in todo)
    shared, workers = _Progress(), max(1, min(num_workers, len(todo)))
    try:
        with (
            forked_pool(workers, _start_worker, dataset, folder, settings, shared) as pool,
            tqdm(total=images, desc='pack', unit='img', disable=None if progress else True) as bar,
        ):
            jobs = {pool.submit(_write_shard, number) for number in todo}
            try:
                while jobs:
                    done, jobs = wait(jobs, timeout=0.5, return_when=FIRST_COMPLETED)
                    bar.update(shared.done - bar.n)
                    for ended in done:
                        ended.result()
            except BaseException:
                shared.stop()
                raise
    except BrokenProcessPool as error:
        raise ConfigError(
            'a process that packed images died (for want of memory?): run it again, with fewer --workers'
        ) from error
    except OSError as error:
        raise ConfigError(f'{folder} cannot be written ({error}): make room and run it again') from error


def _images_of(number: int, settings: dict) -> range:
    """Numbers of the images of a shard."""
    start = number * settings['shard_size']
    return range(start, min(start + settings['shard_size'], settings['images']))


def _write_shard(number: int) -> None:
    dataset, folder, settings, progress = _job
    progress.advance(0)
    with new_shard(folder, number) as (shard, entry):
        names, labels, entry['skipped'] = _write_images(
            dataset, shard, settings, _images_of(number, settings), progress
        )
        entry['images'] = len(names)
        if settings['with_label']:
            np.save(shard / LABELS, np.array(labels, np.int64))
        (shard / NAMES).write_text(json.dumps(names))


def _write_images(
    dataset: ImageFolder, folder: Path, settings: dict, indices: Sequence[int], progress: _Progress
) -> tuple[list[str], list[int | None], list[list[str]]]:
    """Names and labels of the images that could be read; names and reasons of the others."""
    names, labels, skipped, offsets = [], [], [], [0]
    shape = () if settings['format'] == 'jpeg' else (dataset.reader.num_bands, *height_width(settings['size']))
    with closing(ArrayFile(folder / IMAGES, (0, *shape), '<f4' if settings['format'] == 'float32' else 'u1')) as file:
        for index, image in _images(dataset, settings, indices):
            name, label = _entry(dataset, index)
            if isinstance(image, str):
                skipped.append([name, image])
            else:
                names.append(name)
                labels.append(label)
                file.write(stored := _stored(image, settings))
                offsets.append(offsets[-1] + len(stored))
            progress.advance()
        file.close(len(names) if shape else offsets[-1])
    if not shape:
        np.save(folder / OFFSETS, np.array(offsets, np.int64))
    return names, labels, skipped


def _images(dataset: ImageFolder, settings: dict, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray | str]]:
    """(index, image BGR (H, W, 3), or bands, or why it can't be read)."""
    load, shrink = dataset.reader, TRANSFORMS.build(resize_edge(settings['edge']))
    pipeline = Compose([TRANSFORMS.build(step) for step in with_faster_steps(packed_pipeline(settings))])
    for index in indices:
        try:
            results = load(dataset.get_data_info(index))
        except BadImageError as error:
            yield index, error.reason
            continue
        # Whole images that are small stay so: enlarged they would cost room and hold no more.
        if settings['crop'] == 'none' and min(results['img'].shape[:2]) > settings['edge']:
            results = shrink(results)
        yield index, pipeline(results)['img']


def _stored(image: np.ndarray, settings: dict) -> bytes:
    if settings['format'] != 'jpeg':
        if settings['format'] == 'uint8' != image.dtype:
            raise ConfigError(
                "images of other values than 8 bits are not packed as uint8: take format='float32' (--format)"
            )
        planes = np.atleast_3d(image).transpose(2, 0, 1)
        return np.ascontiguousarray(planes, '<f4' if settings['format'] == 'float32' else 'u1').tobytes()
    done, jpeg = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, settings['quality']])
    if not done:
        raise RuntimeError(f'OpenCV does not encode an image of {image.shape}')
    return jpeg.tobytes()


def verify(folder: Path, num_workers: int = 1, progress: bool = False) -> list[str]:
    """The damaged files of a packed data set, by their checksums: 'path reason'."""
    check_range('num_workers', num_workers, 1, kind=int)
    return damaged_files(folder, PACKED, num_workers=num_workers, progress=progress)
