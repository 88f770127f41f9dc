# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10 in memory, from its binary or Python batches."""

import io
import math
import pickle
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from ldae.registry import DATASETS
from ldae.utils import Choice, ConfigError, checked

from .in_memory import InMemoryDataset

BATCHES = dict(train=tuple(f'data_batch_{i}' for i in range(1, 6)), test=('test_batch',))
FOLDERS = ('.', 'cifar-10-batches-bin', 'cifar-10-batches-py')
SHAPE = (3, 32, 32)
CLASSES = ('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck')
# All that the published pickles name; whatever else a file asks for is refused, since unpickling can run any program.
ALLOWED = {('numpy.core.multiarray', '_reconstruct'), ('numpy._core.multiarray', '_reconstruct')}
ALLOWED |= {('numpy', 'ndarray'), ('numpy', 'dtype'), ('_codecs', 'encode')}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f'it asks for {module}.{name}')
        if name == '_reconstruct':
            return np.ndarray.__reduce__(np.empty(0))[0]  # wherever this numpy keeps it
        return super().find_class(module, name)


def read_batch(path: Path) -> tuple[Tensor, Tensor]:
    """Images uint8 (n, 3, 32, 32) and labels (n,) of one file, binary (``.bin``) or pickled. Raises ConfigError if the
    file is damaged or of another kind."""
    try:
        if path.suffix == '.bin':  # a record is the label, then the red, green and blue planes
            records = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 1 + math.prod(SHAPE))
            images, labels = records[:, 1:], records[:, 0]
        else:
            batch = _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding='bytes').load()
            images, labels = np.asarray(batch[b'data']), np.asarray(batch[b'labels'])
        images, labels = torch.from_numpy(images.copy()), torch.from_numpy(labels.copy()).long()
        if not len(images) == len(labels) > 0 or labels.max() >= len(CLASSES) or images.dtype != torch.uint8:
            raise ValueError(f'{len(images)} images, {len(labels)} labels')
        return images.view(-1, *SHAPE), labels
    except Exception as error:  # a damaged pickle can raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f'{path} is not a batch of CIFAR-10 ({reason}): fetch it again') from error


@DATASETS.register_module()
class CIFAR10(InMemoryDataset):
    """CIFAR-10, held in memory and served in whole batches: see :class:`InMemoryDataset`. Raises ConfigError if a file
    is missing or damaged.

    Args:
        data_root: Folder with the five training batches and the test batch, binary or Python version, or the folder in
            which the archive was unpacked.
        split: 'train' or 'test'.
        **kwargs: As in :class:`InMemoryDataset` (``indices``, ``with_label``, ``crop_scale``, ...).
    """

    @checked
    def __init__(self, data_root: str, split: Annotated[str, Choice(BATCHES)] = 'train', **kwargs) -> None:
        images, labels = zip(*map(read_batch, find_batches(data_root, split)), strict=True)
        super().__init__(images=torch.cat(images), labels=torch.cat(labels), **kwargs)
        self.metainfo = dict(classes=CLASSES)


def find_batches(data_root: str | Path, split: str) -> list[Path]:
    """The files of a split, all of one version; raise ConfigError if one is missing."""
    root = Path(data_root).expanduser()
    for folder in FOLDERS:
        for suffix in ('.bin', ''):
            paths = [root / folder / f'{name}{suffix}' for name in BATCHES[split]]
            if all(path.is_file() for path in paths):
                return paths
    raise ConfigError(
        f"{root} does not hold CIFAR-10's {', '.join(BATCHES[split])}, with .bin or without: "
        'unpack the binary or Python version there'
    )
