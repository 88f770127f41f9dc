# SPDX-License-Identifier: Apache-2.0
"""Small grey images in memory, from IDX files (the format of MNIST and Fashion-MNIST)."""

import gzip
import math
import zlib
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from mmengine.dist import barrier, is_main_process
from torch import Tensor

from ldae.registry import DATASETS, FUNCTIONS
from ldae.utils import Choice, ConfigError, checked

from .in_memory import InMemoryDataset

SUBSET_ROOT = Path(__file__).parent / 'fashion_mnist_subset'
SPLIT_PREFIX = dict(train='train', test='t10k')
FASHION_MNIST_CLASSES = (
    'T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat', 'Sandal', 'Shirt', 'Sneaker', 'Bag', 'Ankle boot',
)  # fmt: skip
DIGITS = tuple('0123456789')
# The magic number's last byte is the number of dimensions, the one before it the element type (8: unsigned byte).
MAGIC = dict(images=2051, labels=2049)
SUFFIX = dict(images='images-idx3-ubyte', labels='labels-idx1-ubyte')


def find_idx(root: str | Path, split: str, kind: str) -> Path:
    """The IDX file of a split, gzipped or not, in ``root`` or where torchvision's download puts it (``root/*/raw``)."""
    name = f'{SPLIT_PREFIX[split]}-{SUFFIX[kind]}'
    root = Path(root).expanduser()
    if not root.is_dir():
        raise ConfigError(f'data_root={str(root)!r} is not a folder: it must hold {name}[.gz]')
    for folder in (root, *sorted(root.glob('*/raw'))):
        for path in (folder / f'{name}.gz', folder / name):
            if path.is_file():
                return path
    raise ConfigError(f'{root} holds neither {name}.gz nor {name}: put the four IDX files there')


def read_idx(root: str | Path, split: str, kind: str) -> Tensor:
    """Read 'images' (n, H, W) or 'labels' (n,) as uint8; raise ConfigError for a damaged file."""
    path = find_idx(root, split, kind)
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == '.gz' else path.read_bytes()
    except (EOFError, OSError, zlib.error) as error:
        raise ConfigError(f'{path} cannot be read ({error}): fetch it again') from error
    num_dims = MAGIC[kind] % 256
    found, *shape = (int.from_bytes(raw[i : i + 4], 'big') for i in range(0, 4 + 4 * num_dims, 4))
    if found != MAGIC[kind]:
        raise ConfigError(f'{path} is not the IDX file wanted here: magic number {found}, expected {MAGIC[kind]}')
    if len(raw) < 4 + 4 * num_dims:
        raise ConfigError(f'{path} is truncated: {len(raw)} bytes do not hold an IDX header; fetch it again')
    body = np.frombuffer(raw, np.uint8, offset=4 + 4 * num_dims)
    if body.size != math.prod(shape):
        wanted = ' x '.join(map(str, shape))
        raise ConfigError(f'{path} is damaged: its header says {wanted} bytes, it holds {body.size}; fetch it again')
    return torch.from_numpy(body.copy()).reshape(shape)


def download(data_root: str | Path, name: str) -> None:
    """Let torchvision fetch 'FashionMNIST' or 'MNIST' into ``data_root``, once for all processes."""
    from torchvision import datasets

    if is_main_process():
        try:
            getattr(datasets, name)(str(Path(data_root).expanduser()), download=True)
        except (OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(
                f'{name} could not be downloaded into {data_root} ({reason}): copy the four IDX files there by hand'
            ) from error
    barrier()


@DATASETS.register_module()
class IDXDataset(InMemoryDataset):
    """Images of IDX files, held in memory and served in whole batches: see :class:`InMemoryDataset`. Raises ConfigError
    if a file is missing, damaged or of another kind, or counts don't match.

    Args:
        data_root: Folder with the four IDX files, gzipped or not. None: the Fashion-MNIST subset that ships with ldae.
        split: 'train' or 'test'.
        download: Whether torchvision may fetch the full data set into ``data_root`` when it isn't there.
        name: What to download and how classes are called: 'FashionMNIST' or 'MNIST'.
        **kwargs: As in :class:`InMemoryDataset` (``indices``, ``with_label``, ``crop_scale``, ...).
    """

    @checked
    def __init__(
        self,
        data_root: str | None = None,
        split: Annotated[str, Choice(SPLIT_PREFIX)] = 'train',
        download: bool = False,
        name: Annotated[str, Choice('FashionMNIST', 'MNIST')] = 'FashionMNIST',
        **kwargs,
    ) -> None:
        self.data_root = SUBSET_ROOT if data_root is None else Path(data_root).expanduser()
        if download:
            self._fetch(name, split)
        images, labels = (read_idx(self.data_root, split, kind) for kind in MAGIC)
        if len(images) != len(labels):
            raise ConfigError(f'{self.data_root} has {len(images)} {split} images but {len(labels)} labels')
        super().__init__(images=images.unsqueeze(1), labels=labels, **kwargs)
        self.metainfo = dict(classes=FASHION_MNIST_CLASSES if name == 'FashionMNIST' else DIGITS)

    def _fetch(self, name: str, split: str) -> None:
        if self.data_root == SUBSET_ROOT:
            raise ConfigError('IDXDataset.download=True needs a data_root to download into')
        try:
            find_idx(self.data_root, split, 'images')
        except ConfigError:
            download(self.data_root, name)


@FUNCTIONS.register_module()
def batch_collate(batch: dict | list[dict]) -> dict:
    """Pass on a batch that the dataset has put together itself; join several, which come from wrapped datasets."""
    if isinstance(batch, dict):
        return batch
    samples, inputs = ([part[key] for part in batch] for key in ('data_samples', 'inputs'))
    return dict(
        inputs=[*map(torch.cat, zip(*inputs, strict=True))] if isinstance(inputs[0], list) else torch.cat(inputs),
        data_samples=None if samples[0] is None else [sample for part in samples for sample in part],
    )
