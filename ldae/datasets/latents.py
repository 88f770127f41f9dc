# SPDX-License-Identifier: Apache-2.0
"""The latents of a data set, in a folder of numpy's files that are mapped into memory."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from mmpretrain.structures import DataSample
from torch import Tensor
from torch.utils.data import Dataset

from ldae.registry import DATASETS
from ldae.utils import Choice, ConfigError

from .store import LABELS, ArrayFile, Count, Kind, Store, check_files, new_shard, new_store, take

#: Names of number formats, and numpy's codes. It has no bfloat16, whose bits are kept as integers.
DTYPES = dict(float32='<f4', float16='<f2', bfloat16='<i2')
#: Images a shard.
SHARD_SIZE = 4096
ROWS = 'latents.npy'
LATENTS = Kind(
    'latents',
    'ldae.LatentCacheHook',
    'latents.json',
    'delete {folder}, and they are made anew',
    dict(shape=tuple[Count, Count, Count], dtype=Annotated[str, Choice(DTYPES)], shard_size=Count, with_label=bool),
)


@DATASETS.register_module()
class LatentDataset(Dataset):
    """Latents that :class:`LatentCacheHook` has written, served in whole batches.

    A DataLoader's batch is ``dict(inputs=(B, N, d) as they are kept, data_samples=list[DataSample] or None)``; it needs
    ``collate_fn=dict(type='ldae.batch_collate')``, and no workers. What is read stays in the system's page cache, once
    for all processes of a machine. Raises ConfigError if the folder is missing, damaged or holds no latents, or no
    labels and is asked for some.

    Args:
        file: The folder that they lie in.
        with_label: Whether samples carry ``gt_label``.
    """

    def __init__(self, file: str | os.PathLike, with_label: bool = False) -> None:
        self.file, self.with_label = Path(file).expanduser(), with_label
        if self.file.is_file():
            raise ConfigError(
                f'{self.file} is a file, and latents lie in a folder (one file is what earlier versions of ldae wrote): '
                'delete it, and they are made anew, or name another folder'
            )
        store = Store(self.file, LATENTS)
        self.made_of: Mapping[str, str] = store.settings
        self.shape, self.dtype = tuple(store.settings['shape']), store.settings['dtype']
        if with_label and not store.settings['with_label']:
            raise ConfigError(f'{self.file} holds no labels, which the model asks for: {LATENTS.fix(self.file)}')
        self.shards, size = store.shards, store.settings['shard_size']
        for start, shard in zip(range(0, self.shape[0], size), self.shards, strict=False):
            count = min(size, self.shape[0] - start)
            if shard.checked(ROWS, 'fi', count, *self.shape[1:]).dtype != DTYPES[self.dtype]:
                raise ConfigError(
                    f'{shard.folder} holds numbers of another dtype than its manifest says: {LATENTS.fix(self.file)}'
                )
            if with_label:
                shard.checked(LABELS, 'iu', count)
        if len(self.shards) != -(-self.shape[0] // size):
            raise ConfigError(
                f'{self.file} holds {len(self.shards)} shards for {self.shape[0]} images: {LATENTS.fix(self.file)}'
            )
        self.labels = torch.from_numpy(store.whole(LABELS)) if with_label else None
        self.metainfo: dict = {}

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(DTYPES[self.dtype]).itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, numbers: Sequence[int]) -> Tensor:
        """Latents (B, N, d) of the images of these numbers."""
        numbers = np.asarray(numbers)
        if numbers.size and not -len(self) <= numbers.min() <= numbers.max() < len(self):
            raise IndexError(f'{self.file} holds {len(self)} images')
        places = np.divmod(numbers % len(self), self.made_of['shard_size'])
        found = torch.from_numpy(take([shard[ROWS] for shard in self.shards], *places))
        return found.view(getattr(torch, self.dtype))

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> dict:
        """The batch at ``indices``."""
        samples = None
        if self.labels is not None:
            samples = [DataSample().set_gt_label(label) for label in self.labels[torch.as_tensor(indices)]]
        return dict(inputs=self.rows(indices), data_samples=samples)

    def __reduce__(self) -> tuple:  # for a worker: by name, not by value
        return LatentDataset, (self.file, self.with_label)

    def verify(self, shards: Sequence[int]) -> None:
        """Read some shards, given by number, and raise ConfigError if the checksum of one differs."""
        check_files(self.file, LATENTS, shards)


def shards_of(count: int) -> list[range]:
    """The images of each shard."""
    return [range(start, min(start + SHARD_SIZE, count)) for start in range(0, count, SHARD_SIZE)]


def new_latents(
    path: Path, shape: Sequence[int], dtype: str, with_label: bool = False, made_of: Mapping[str, str] = {}
) -> AbstractContextManager[tuple[Path, dict]]:
    """A folder for latents (n, N, d) of a ``dtype`` of :data:`DTYPES`, with labels or without, as
    :func:`ldae.datasets.store.new_store` gives it, to be filled by :func:`write_shard`; ``made_of`` is for the
    manifest."""
    settings = dict(made_of, shape=list(shape), dtype=dtype, shard_size=SHARD_SIZE, with_label=with_label)
    size = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize + 8 * with_label * shape[0]
    return new_store(path, LATENTS, settings, len(shards_of(shape[0])), size)


def write_shard(
    folder: Path, number: int, shape: Sequence[int], dtype: str, batches: Iterable[tuple[Tensor, Tensor | None]]
) -> None:
    """Write latents (B, N, d) and labels (B,) or None of the images of a shard, batch by batch."""
    images, labels = shards_of(shape[0])[number], []
    with new_shard(folder, number) as (shard, _):
        with closing(ArrayFile(shard / ROWS, (len(images), *shape[1:]), DTYPES[dtype])) as file:
            for latents, of_batch in batches:
                file.write(_stored(latents, dtype, images.start))
                labels += [] if of_batch is None else [of_batch]
        if labels:
            np.save(shard / LABELS, torch.cat(labels).numpy())


def _stored(latents: Tensor, dtype: str, first: int) -> np.ndarray:
    latents = latents.to(getattr(torch, dtype)).cpu().contiguous()
    if not torch.isfinite(latents).all():
        raise ConfigError(
            f'latents from image {first} on are beyond torch.{dtype} or not finite: set dtype to float32, and check the '
            'tokenizer'
        )
    return (latents.view(torch.int16) if dtype == 'bfloat16' else latents).numpy()
