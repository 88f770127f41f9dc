# SPDX-License-Identifier: Apache-2.0
"""Arrays on disk that are there whole or not at all: packed images, latents and features.

A store is a folder of shards, folders themselves, of numpy's own files, which are read by memory map. Its manifest says
what they hold::

    <manifest>.json      format, kind, settings, and of each shard its name and each file's size and SHA-256
    shard-00000/
        shard.json       this shard's entry of the manifest
        images.npy ...

A shard has another name until it is whole and on the disk, and the manifest is written last.
"""

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from mmengine.dist import all_gather_object, is_main_process
from tqdm import tqdm

from ldae.utils import ConfigError, Range
from ldae.utils.collective import failing_together, from_main_process
from ldae.utils.files import atomic_write_text, flush
from ldae.utils.ranges import check_value, fits

FORMAT = 1
SHARD = 'shard.json'
LABELS, OFFSETS = 'labels.npy', 'offsets.npy'
#: How many, of anything.
Count = Annotated[int, Range(1, 2**40)]
#: Names of shards and files: none of them leaves the folder.
NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]*')


@dataclass(frozen=True)
class Kind:
    """A kind of store: what it holds, what writes it, the name of its manifest, what to do about a damaged one (with the
    ``{folder}`` or the damaged ``{part}`` of it), which settings it has, of which types, and under which name each shard says how many it holds."""

    name: str
    writer: str
    manifest: str
    remedy: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    count: str = ''

    def fix(self, folder: Path, part: str | None = None) -> str:
        """Advice for when a shard, or without ``part`` the manifest, is damaged."""
        return self.remedy.format(folder=folder, part=folder / (part or self.manifest))


def shard_name(number: int) -> str:
    return f'shard-{number:05d}'


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def readable(path: Path, advice: str) -> Iterator[None]:
    """Say in one line that a file of JSON is damaged, whatever reading it raises."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        why = error if type(error) in (ValueError, ConfigError) else type(error).__name__
        raise ConfigError(f'{path} cannot be read ({why}): {advice}') from error


def read_manifest(folder: Path, kind: Kind) -> dict[str, Any]:
    """The manifest of a store. Raises ConfigError if it can't be read here, is of another kind, or names what lies
    outside the folder."""
    path = folder / kind.manifest
    if not path.is_file():
        raise ConfigError(f'{folder} holds no finished {kind.name}, which {kind.writer} writes')
    with readable(path, kind.fix(folder)):
        manifest = json.loads(path.read_text())
        found = manifest.get('format')
        if found == FORMAT:
            _check_manifest(manifest, kind)
    if found != FORMAT:
        state = 'has no format number' if found is None else f'has format {found}'
        raise ConfigError(
            f'{path} {state}, and this version of ldae reads {FORMAT}: use the version that wrote it, or another folder'
        )
    return manifest


def _check_manifest(manifest: Mapping[str, Any], kind: Kind) -> None:
    if (found := manifest.get('kind', kind.name)) != kind.name:  # the first stores had one kind, and didn't say so
        raise ValueError(f'it describes {found}, not {kind.name}')
    settings = manifest['settings']
    for key, hint in kind.settings.items():
        check_value(key, settings.get(key) if fits(None, hint) else settings[key], hint)
    check_value('classes', manifest.get('classes'), list[str] | None)
    if not manifest['shards']:
        raise ValueError('it names no shards')
    for shard in manifest['shards']:
        _check_shard(shard, kind)


def _check_shard(shard: Mapping[str, Any], kind: Kind) -> None:
    if kind.count:
        check_value(kind.count, shard[kind.count], Annotated[int, Range(0, 2**40)])
    for name in (shard['name'], *shard['files']):
        if not NAME.fullmatch(name):
            raise ValueError(f'{name!r} is not the name of a file in it')
    for size, digest in shard['files'].values():
        if type(size) is not int or type(digest) is not str:
            raise TypeError


def _files(folder: Path, shards: Sequence[Mapping]) -> dict[Path, Sequence]:
    """Size and checksum of each file."""
    return {folder / shard['name'] / name: told for shard in shards for name, told in shard['files'].items()}


def _problem(path: Path, told: Sequence, by_checksum: bool = True) -> str:
    size, checksum = told
    if path.is_symlink() or path.parent.is_symlink():
        return f'{path} is a link, which may lead anywhere'
    if not path.is_file():
        return f'{path} is missing'
    if (found := path.stat().st_size) != size:
        return f'{path} has {found:,} bytes of {size:,}'
    return f'{path} is damaged' if by_checksum and sha256_of(path) != checksum else ''


def damaged_files(
    folder: Path, kind: Kind, numbers: Sequence[int] | None = None, num_workers: int = 1, progress: bool = False
) -> list[str]:
    """Errors in the files of all shards or of those of some numbers, by their checksums: 'path reason'."""
    shards = read_manifest(folder, kind)['shards']
    files = _files(folder, shards if numbers is None else [shards[number] for number in numbers])
    bar = dict(total=len(files), desc='verify', unit='file', disable=None if progress else True)
    with ThreadPoolExecutor(num_workers) as pool:  # hashing lets other threads run
        return list(filter(None, tqdm(pool.map(_problem, files, files.values()), **bar)))


def check_files(folder: Path, kind: Kind, numbers: Sequence[int] | None = None) -> None:
    """Raise ConfigError if a file of some shards, or of all, isn't as it was written."""
    for problem in damaged_files(folder, kind, numbers):
        raise ConfigError(f'{problem}: {kind.fix(folder)}')


class Shard:
    """The arrays of a shard by their files' names, mapped into memory when first read, in each process by itself."""

    def __init__(self, folder: Path, kind: Kind) -> None:
        self.folder, self.kind = folder, kind
        self._arrays: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if (array := self._arrays.get(name)) is None:
            try:
                array = np.load(self.folder / name, mmap_mode='r', allow_pickle=False)
                if not array.dtype.isnative:
                    raise ValueError(f'its numbers are {array.dtype}')
            except Exception as error:  # numpy parses the head as Python's literals, in several ways
                fix = self.kind.fix(self.folder.parent, self.folder.name)
                raise ConfigError(f'{self.folder / name} cannot be read ({error}): {fix}') from error
            # A plain array: numpy's memmap takes a microsecond more for each row.
            self._arrays[name] = array = array.view(np.ndarray)
        return array

    def checked(self, name: str, kinds: str, *shape: int | None) -> np.ndarray:
        """An array of one of numpy's ``kinds`` of numbers and this shape, in which None is any number."""
        array = self[name]
        fitting = len(array.shape) == len(shape) and all(
            n in (None, m) for n, m in zip(shape, array.shape, strict=True)
        )
        if not fitting or array.dtype.kind not in kinds:
            fix = self.kind.fix(self.folder.parent, self.folder.name)
            raise ConfigError(f'{self.folder / name} is not as its manifest says: {array.dtype} {array.shape}: {fix}')
        return array

    def __reduce__(self) -> tuple:  # for workers that are spawned: a map would be sent as what it holds
        return Shard, (self.folder, self.kind)


class Store:
    """A store that is opened to be read: its manifest, the size of each file, and its small ones, are as they were written."""

    def __init__(self, folder: Path, kind: Kind) -> None:
        self.manifest = read_manifest(folder, kind)
        for path, told in _files(folder, self.manifest['shards']).items():
            if problem := _problem(path, told, by_checksum=path.name in (LABELS, OFFSETS)):
                raise ConfigError(f'{problem}: {kind.fix(folder, path.parent.name)}')
        self.settings: dict[str, Any] = self.manifest['settings']
        self.shards = [Shard(folder / shard['name'], kind) for shard in self.manifest['shards']]

    def whole(self, name: str) -> np.ndarray:
        """An array of all shards, one after the other, in memory."""
        return np.concatenate([shard[name] for shard in self.shards])


def take(arrays: Sequence[np.ndarray], numbers: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows, given by the number of an array and the row in it, copied into one array."""
    if len(arrays) == 1:
        return arrays[0][rows]
    out = np.empty((len(rows), *arrays[0].shape[1:]), arrays[0].dtype)
    if len(rows) > 8 * len(arrays) and out[:1].nbytes < 4096:  # many small ones of each array
        for number, array in enumerate(arrays):
            out[numbers == number] = array[rows[numbers == number]]
    else:
        for i, (number, row) in enumerate(zip(numbers.tolist(), rows.tolist(), strict=True)):
            out[i] = arrays[number][row]
    return out


class ArrayFile:
    """A .npy file that is written piece by piece; the first number of its shape may grow until it is closed."""

    def __init__(self, path: Path, shape: Sequence[int], dtype: str) -> None:
        self._file, self._shape, self._dtype = path.open('wb'), tuple(shape), np.dtype(dtype)
        self._start = self._write_head()

    def _write_head(self) -> int:
        self._file.seek(0)
        head = dict(descr=self._dtype.str, fortran_order=False, shape=self._shape)
        np.lib.format.write_array_header_1_0(self._file, head)
        return self._file.tell()

    def write(self, values: bytes | np.ndarray, place: int | None = None) -> None:
        """Put values behind those before, or where the element number ``place`` is."""
        if place is not None:
            self._file.seek(self._start + place * self._dtype.itemsize)
        self._file.write(values)

    def close(self, length: int | None = None) -> None:
        """Write the first number of the shape, where it has changed."""
        if length is not None:
            self._shape = (length, *self._shape[1:])
            if self._write_head() != self._start:
                raise RuntimeError('numpy leaves no room for the number of rows in the head of a file')
        self._file.close()


@contextmanager
def new_shard(folder: Path, number: int) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder to write the files of a shard into and its entry to add to; when the block ends, it is flushed to the disk,
    and gets its name."""
    unfinished = folder / f'.{shard_name(number)}.unfinished'
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    entry: dict[str, Any] = dict(name=shard_name(number))
    yield unfinished, entry
    entry['files'] = {path.name: [path.stat().st_size, sha256_of(path)] for path in sorted(unfinished.iterdir())}
    (unfinished / SHARD).write_text(json.dumps(entry) + '\n')
    for path in (*unfinished.iterdir(), unfinished):
        flush(path)
    unfinished.rename(folder / entry['name'])


def entries_of(folder: Path, kind: Kind, count: int, **hints: Any) -> list[dict[str, Any]]:
    """The entries of the shards that were written, for the manifest; ``hints`` are types of what else is in them."""
    return [_entry_of(folder / shard_name(number) / SHARD, kind, hints) for number in range(count)]


def _entry_of(path: Path, kind: Kind, hints: Mapping[str, Any]) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f'{path} is missing: all processes must write into the same folder')
    with readable(path, f'remove {path.parent}, and run it again'):
        entry = json.loads(path.read_text())
        _check_shard(entry, kind)
        for name, hint in hints.items():
            check_value(name, entry[name], hint)
    return entry


def write_manifest(
    folder: Path, kind: Kind, settings: Mapping[str, Any], shards: Sequence[Mapping], **entries: Any
) -> dict[str, Any]:
    """Say that a store is whole."""
    manifest = dict(format=FORMAT, kind=kind.name, settings=settings, **entries, shards=shards)
    flush(folder)
    atomic_write_text(folder / kind.manifest, json.dumps(manifest) + '\n')
    flush(folder)
    return manifest


@contextmanager
def new_store(
    folder: Path, kind: Kind, settings: Mapping[str, Any], count: int, size: int = 0, replace: bool = False
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder that all processes write shards into, ``count`` in all, and entries of the manifest to add to; when
    all have left the block, it gets its name, with ``replace`` also in the place of one that is there. If one fails,
    nothing is left. Raises ConfigError if there is no room for ``size`` bytes, the folder can't be written, or
    processes disagree about ``settings``."""
    unfinished, entries = folder.with_name(f'.{folder.name}.{uuid.uuid4().hex[:8]}.unfinished'), {}
    unfinished = from_main_process(unfinished)
    try:
        with _failing_together(folder, kind):
            if any(other != settings for other in all_gather_object(settings)):
                raise ConfigError(f'{folder}: the processes differ in what they are to write: {settings}')
            if is_main_process():
                _check_room(folder, kind, size, replace)
                unfinished.mkdir()
        with _failing_together(folder, kind):
            yield unfinished, entries
        with _failing_together(folder, kind):
            if is_main_process():
                write_manifest(unfinished, kind, settings, entries_of(unfinished, kind, count), **entries)
                _put_in_place(unfinished, folder)
    except BaseException:
        if is_main_process():
            shutil.rmtree(unfinished, ignore_errors=True)
        raise


@contextmanager
def _failing_together(folder: Path, kind: Kind) -> Iterator[None]:
    """Make what fails in one process fail in all, in one line."""
    with failing_together():
        try:
            yield
        except OSError as error:
            raise ConfigError(f'{folder}: {kind.name} cannot be written ({error.strerror or error})') from error


def _check_room(folder: Path, kind: Kind, size: int, replace: bool) -> None:
    if folder.exists() and not replace:
        raise ConfigError(f'{folder} exists: name another folder for the {kind.name}')
    folder.parent.mkdir(parents=True, exist_ok=True)
    if size > (free := shutil.disk_usage(folder.parent).free):
        raise ConfigError(
            f'{folder}: the {kind.name} take {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: name another folder'
        )


def _put_in_place(unfinished: Path, folder: Path) -> None:
    old = unfinished.with_suffix('.old')
    if folder.exists():
        folder.rename(old)
    unfinished.rename(folder)
    flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
