# SPDX-License-Identifier: Apache-2.0
"""Cut the class-balanced subset that ships with ldae out of the full Fashion-MNIST.

Example:
    python tools/make_fashion_mnist_subset.py /usr/share/datasets/fashion-mnist --out ldae/datasets/fashion_mnist_subset
"""

import argparse
import gzip
from pathlib import Path

import torch
from torch import Tensor

from ldae.datasets.idx import SPLIT_PREFIX, read_idx

PER_CLASS = dict(train=1000, test=200)
IDX_MAGIC = {1: 2049, 3: 2051}


def first_per_class(labels: Tensor, count: int) -> Tensor:
    """Indices, in order, of the first ``count`` items of each class."""
    picked = [(labels == label).nonzero().flatten()[:count] for label in labels.unique()]
    return torch.cat(picked).sort().values


def write_idx(path: Path, array: Tensor) -> None:
    """Write a uint8 tensor as IDX; the file's bytes depend on nothing but the tensor."""
    header = [IDX_MAGIC[array.dim()], *array.shape]
    payload = b''.join(number.to_bytes(4, 'big') for number in header) + array.numpy().tobytes()
    path.write_bytes(gzip.compress(payload, compresslevel=9, mtime=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', help='folder with the four IDX files of Fashion-MNIST, gzipped or not')
    parser.add_argument('--out', required=True, type=Path, help='folder to write to')
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for split, count in PER_CLASS.items():
        images, labels = read_idx(args.source, split, 'images'), read_idx(args.source, split, 'labels')
        keep = first_per_class(labels, count)
        prefix = SPLIT_PREFIX[split]
        write_idx(args.out / f'{prefix}-images-idx3-ubyte.gz', images[keep])
        write_idx(args.out / f'{prefix}-labels-idx1-ubyte.gz', labels[keep])
        print(f'{split}: kept {len(keep)} of {len(labels)}')


if __name__ == '__main__':
    main()
