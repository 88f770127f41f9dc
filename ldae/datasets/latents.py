# SPDX-License-Identifier: Apache-2.0
"""The latents of a data set, in a file that is mapped into memory.

The file is one of safetensors', which many programs read: the length of the header in 8 bytes, the header in JSON, then
``latents`` (n, N, d) and, for models that are conditioned on classes, ``labels`` (n,). Its header names the tokenizer and
the data that the latents were made of, and a checksum for each :data:`CHUNK` images.
"""

import json
import os
import shutil
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from mmpretrain.structures import DataSample
from torch import Tensor
from torch.utils.data import Dataset

from ldae.registry import DATASETS
from ldae.utils import ConfigError

#: Names of number formats, here and in the file.
DTYPES = dict(float32='F32', float16='F16', bfloat16='BF16')
#: Images a checksum.
CHUNK = 4096
FORMAT = 'ldae latents 1'
PAGE = 4096
WORD = 8


def chunks_of(count: int) -> list[range]:
    """The images of each checksum."""
    return [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]


def first_of_chunk(number: int) -> int:
    """The first image of the chunk that an image is in."""
    return number - number % CHUNK


@DATASETS.register_module()
class LatentDataset(Dataset):
    """Latents from a file that :class:`LatentCacheHook` has written, served in whole batches without copying the file.

    A DataLoader's batch is ``dict(inputs=(B, N, d) in the file's number format, data_samples=list[DataSample] or None)``; it
    needs ``collate_fn=dict(type='ldae.batch_collate')``, and no workers. What is read stays in the system's page cache, once
    for all processes of a machine.

    Args:
        file: The file.
        with_label: Whether samples carry ``gt_label``.

    Raises:
        ConfigError: The file is missing, damaged or no file of latents, or has no labels and is asked for some.
    """

    def __init__(self, file: str | os.PathLike, with_label: bool = False) -> None:
        self.file, self.with_label = Path(file).expanduser(), with_label
        header, start = read_header(self.file)
        self.made_of: Mapping[str, str] = header['__metadata__']
        self.latents = self._map(header['latents'], start)
        self.labels = self._map(header['labels'], start) if 'labels' in header else None
        if with_label and self.labels is None:
            raise ConfigError(
                f'{self.file} holds no labels, which the model asks for: delete it, and it is made anew'
            )
        self.metainfo: dict = {}

    def _map(self, entry: Mapping, start: int) -> Tensor:
        dtype = {'I64': torch.int64} | {code: getattr(torch, name) for name, code in DTYPES.items()}
        first, last = (start + offset for offset in entry['data_offsets'])
        if self.file.stat().st_size < last:
            raise ConfigError(f'{self.file} is truncated: delete it, and it is made anew')
        # Private: nothing that is written to the tensor would get into the file.
        raw = torch.from_file(str(self.file), shared=False, size=last, dtype=torch.uint8)
        return raw[first:last].view(dtype[entry['dtype']]).view(entry['shape'])

    @property
    def dtype(self) -> str:
        """A key of :data:`DTYPES`."""
        return str(self.latents.dtype).removeprefix('torch.')

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> dict:
        """The batch at ``indices``."""
        keep = torch.as_tensor(indices)
        samples = None
        if self.with_label:
            samples = [DataSample().set_gt_label(label) for label in self.labels[keep]]
        return dict(inputs=self.latents[keep], data_samples=samples)

    def __reduce__(self) -> tuple:  # for a worker: by name, not by value
        return LatentDataset, (self.file, self.with_label)

    def verify(self, chunks: Sequence[int]) -> None:
        """Read some chunks, given by number, and compare their checksums.

        Raises:
            ConfigError: One differs.
        """
        parts = [self.latents[chunk.start : chunk.stop] for chunk in chunks_of(len(self))]
        # One more for the labels, which go with the first chunk.
        numbers = [*chunks, *([-1] if self.labels is not None and 0 in chunks else [])]
        parts += [] if self.labels is None else [self.labels]
        expected = json.loads(self.made_of['checksums'])
        if any(checksum(parts[number]) != expected[number] for number in numbers):
            raise ConfigError(f'{self.file} is damaged: delete it, and it is made anew')


def checksum(rows: Tensor, before: int = 0) -> int:
    """CRC-32 of some rows, going on from that of those before."""
    return zlib.crc32(bytes_of(rows), before)


def bytes_of(rows: Tensor) -> memoryview:
    """The memory of a tensor of a CPU."""
    return rows.contiguous().view(-1).view(torch.uint8).numpy().data


def read_header(path: Path) -> tuple[dict, int]:
    """The header, and where the data begin.

    Raises:
        ConfigError: The file is missing or no file of latents.
    """
    if not path.is_file():
        raise ConfigError(f'{path} is no file: name one of latents, which ldae.LatentCacheHook writes')
    try:
        with path.open('rb') as file:
            length = int.from_bytes(file.read(WORD), 'little')
            if length > path.stat().st_size:
                raise ValueError('its header is longer than the file')
            header = json.loads(file.read(length))
        if header['__metadata__']['format'] != FORMAT:
            raise ValueError(f'its format is {header["__metadata__"]["format"]!r}')
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f'{path} is no file of latents ({error}): delete it, or name another') from error
    return header, WORD + length


class LatentFile:
    """A file of latents while it is written: by several processes, each its own rows, under another name until it is whole.

    Args:
        path: What it will be called.
        shape: (n, N, d).
        dtype: A key of :data:`DTYPES`.
        with_label: Whether there will be labels.
        unfinished: What it is called by now, from the process that has called :meth:`create`.
    """

    def __init__(
        self,
        path: Path,
        shape: Sequence[int],
        dtype: str,
        with_label: bool = False,
        unfinished: Path | None = None,
    ) -> None:
        self.path, self.shape, self.dtype = path, tuple(shape), getattr(torch, dtype)
        self.code, self.row_bytes = DTYPES[dtype], shape[1] * shape[2] * self.dtype.itemsize
        self.unfinished = unfinished or path.with_name(f'.{path.name}.{uuid.uuid4().hex[:8]}.unfinished')
        # A place for the header, which is written last: 12 digits a checksum, and what else there is.
        self.start = PAGE * -(-(2048 + 12 * len(chunks_of(shape[0]))) // PAGE)
        # Labels come first: after rows of an odd length they wouldn't lie at a multiple of their size.
        self.first_row = 8 * shape[0] if with_label else 0

    def create(self) -> None:
        """Make the file, as large as it will be.

        Raises:
            ConfigError: There is no room for it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        size = self.start + self.first_row + self.shape[0] * self.row_bytes
        free = shutil.disk_usage(self.path.parent).free
        if size > free:
            raise ConfigError(
                f'{self.path}: the latents take {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: name another file'
            )
        with self.unfinished.open('wb') as file:
            file.truncate(size)

    def write(self, first: int, rows: Tensor) -> Tensor:
        """Put (B, N, d) at a row, and return it as it was written."""
        rows = rows.to(self.dtype).cpu()
        if not torch.isfinite(rows).all():
            raise ConfigError(
                f'latents from image {first} on are beyond {self.dtype} or not finite: set dtype to float32, and check the '
                'tokenizer'
            )
        with self.unfinished.open('r+b') as file:
            file.seek(self.start + self.first_row + first * self.row_bytes)
            file.write(bytes_of(rows))
        return rows

    def finish(self, made_of: Mapping[str, str], checksums: Sequence[int], labels: Tensor | None) -> None:
        """Write labels (n,) and header, flush to the disk, and give the file its name."""
        checksums = [*checksums, *([] if labels is None else [checksum(labels)])]
        metadata = dict(made_of, format=FORMAT, checksums=json.dumps(checksums))
        end = self.first_row + self.shape[0] * self.row_bytes
        header = dict(__metadata__=metadata)
        if labels is not None:
            header['labels'] = dict(dtype='I64', shape=[len(labels)], data_offsets=[0, self.first_row])
        header['latents'] = dict(dtype=self.code, shape=self.shape, data_offsets=[self.first_row, end])
        text = json.dumps(header).encode().ljust(self.start - WORD)
        with self.unfinished.open('r+b') as file:
            file.write(len(text).to_bytes(WORD, 'little') + text)
            if labels is not None:
                file.write(bytes_of(labels))
            file.flush()
            os.fsync(file.fileno())
        self.unfinished.replace(self.path)

    def discard(self) -> None:
        """Delete what there is of it."""
        with suppress(OSError):
            self.unfinished.unlink(missing_ok=True)


def batches_of(chunks: Sequence[range], batch_size: int) -> Iterator[list[int]]:
    """Numbers of images, batch by batch, none of more than one chunk."""
    for chunk in chunks:
        for start in range(chunk.start, chunk.stop, batch_size):
            yield list(range(start, min(start + batch_size, chunk.stop)))
