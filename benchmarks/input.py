# SPDX-License-Identifier: Apache-2.0
"""Reading images for training: a plain folder, packed ones, tar shards and parquet, against mmpretrain's pipeline and torchvision's ImageFolder.

    python benchmarks/input.py

JPEGs of the size of ImageNet's, smooth with a little grain, are made in a temporary folder. Each reader is an iterator over
batches in one process and one thread; they take turns, and the median of ``--runs`` counts, in time of the processor: images
per second and core. Files come from the page cache, so disks are left out. The machine's limit is a copy of the decoded
images from memory to memory.
"""

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import datasets
import numpy as np
import torch
from datasets import Dataset
from mmengine.dataset import default_collate
from mmpretrain.datasets import CustomDataset
from torchvision.datasets import ImageFolder as TorchvisionFolder
from torchvision.transforms import v2
from webdataset import ShardWriter

from ldae.datasets import ImageFolder, PackedImages
from ldae.datasets.packing import PackOptions, pack

PEER = "mmpretrain's pipeline"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=256)
    parser.add_argument('--height', type=int, default=375)
    parser.add_argument('--width', type=int, default=500)
    parser.add_argument('--size', type=int, default=256, help='of the crops')
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--runs', type=int, default=7)
    parser.add_argument('--grain', type=float, default=9, help='noise on the images; sets the size of the files')
    return parser.parse_args()


def write_images(folder: Path, args: argparse.Namespace) -> float:
    """Pictures with a spectrum that falls as photographs' does; the mean size of a file in kB."""
    rng = np.random.default_rng(0)
    for i in range(args.images):
        shape = (args.height, args.width) if i % 3 else (args.width, args.height)
        picture = rng.normal(0, args.grain, (*shape, 3))
        for cells in (4, 8, 16, 32, 64, 128):
            coarse = rng.normal(0, 150 / cells**0.6, (cells, cells, 3))
            picture += cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
        path = folder / 'train' / f'class {i % 2}' / f'{i}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.clip(picture + 118, 0, 255).astype(np.uint8)
        cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, 92])
    return statistics.mean(path.stat().st_size for path in folder.rglob('*.jpg')) / 1000


def pipeline(size: int, crop: str, loader: str = 'ldae.LoadImage') -> list[dict]:
    """That of our configs."""
    pillow = dict(backend='pillow', interpolation='bicubic')
    steps = dict(
        center=[dict(type='ResizeEdge', scale=size, edge='short', **pillow), dict(type='CenterCrop', crop_size=size)],
        random=[dict(type='RandomResizedCrop', scale=size, crop_ratio_range=(0.2, 1.0), **pillow)],
    )
    return [dict(type=loader), *steps[crop], dict(type='PackInputs')]


def torchvision_folder(folder: Path, size: int, crop: str) -> TorchvisionFolder:
    """The same pixels by torchvision, from Pillow's images."""
    options = dict(interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
    steps = dict(
        center=[v2.Resize(size, **options), v2.CenterCrop(size)],
        random=[v2.RandomResizedCrop(size, scale=(0.2, 1), **options)],
    )
    return TorchvisionFolder(str(folder / 'train'), v2.Compose([*steps[crop], v2.PILToTensor()]))


def batched(dataset: torch.utils.data.Dataset, collate: Callable = default_collate) -> Callable[[list[int]], object]:
    """What a DataLoader's worker does for a batch."""
    if hasattr(dataset, '__getitems__'):
        return dataset.__getitems__
    return lambda indices: collate([dataset[i] for i in indices])


def readers(folder: Path, args: argparse.Namespace, crop: str) -> dict[str, Callable[[list[int]], object]]:
    """Function of a batch's indices, by name; the peer first."""
    steps, root = pipeline(args.size, crop), str(folder)
    theirs = pipeline(args.size, crop, 'LoadImageFromFile')
    found = {
        PEER: batched(CustomDataset(f'{root}/train', pipeline=theirs)),
        'torchvision ImageFolder': batched(
            torchvision_folder(folder, args.size, crop), torch.utils.data.default_collate
        ),
        'folder': batched(ImageFolder(root, pipeline=steps)),
        'folder, fast_resize': batched(ImageFolder(root, pipeline=steps, fast_resize=True)),
        'tar shards': batched(ImageFolder(f'wds::{root}-shards', pipeline=steps)),
        'parquet': batched(ImageFolder(f'hf::{root}-parquet', pipeline=steps)),
    }
    if crop == 'center':
        found['packed uint8'] = batched(PackedImages(f'{root}-uint8', pipeline=steps))
        found['packed JPEG'] = batched(PackedImages(f'{root}-jpeg', pipeline=steps))
    else:
        found['packed JPEG'] = batched(PackedImages(f'{root}-whole', pipeline=steps))
        found['packed JPEG, fast_resize'] = batched(PackedImages(f'{root}-whole', pipeline=steps, fast_resize=True))
    return found


def pack_all(folder: Path, size: int) -> None:
    dataset, workers = ImageFolder(str(folder)), len(os.sched_getaffinity(0))
    for name, options in dict(
        uint8=PackOptions(edge=size),
        jpeg=PackOptions(edge=size, format='jpeg'),
        whole=PackOptions('none', edge=size, format='jpeg'),
    ).items():
        pack(dataset, Path(f'{folder}-{name}') / 'train', options, workers)


def write_shards(folder: Path) -> None:
    """The same files in tar shards and in parquet, by the libraries."""
    paths = sorted((folder / 'train').rglob('*.jpg'))
    shards, tables = (Path(f'{folder}-{kind}') for kind in ('shards', 'parquet'))
    shards.mkdir()
    tables.mkdir()
    with ShardWriter(f'{shards}/train-%04d.tar', maxcount=100, verbose=0) as writer:
        for number, path in enumerate(paths):
            label = path.parent.name[-1]
            writer.write({'__key__': f'{number:06d}', 'jpg': path.read_bytes(), 'cls': label})
    columns = dict(image=[path.read_bytes() for path in paths], label=[path.parent.name for path in paths])
    Dataset.from_dict(columns).to_parquet(tables / 'train.parquet')


def copying(args: argparse.Namespace) -> Callable[[list[int]], object]:
    """The bare copy of as many decoded images, from all over a memory larger than the caches."""
    source = torch.randint(256, (args.images, 3, args.size, args.size), dtype=torch.uint8).numpy()

    def copy(indices: list[int]) -> np.ndarray:
        batch = np.empty((len(indices), *source.shape[1:]), np.uint8)
        for n, i in enumerate(indices):
            batch[n] = source[i]
        return batch

    return copy


def rates(functions: dict[str, Callable[[list[int]], object]], args: argparse.Namespace) -> dict[str, float]:
    """Images per second of processor time, by name."""
    order = torch.randperm(args.images, generator=torch.Generator().manual_seed(0)).tolist()
    batches = [order[i : i + args.batch_size] for i in range(0, len(order), args.batch_size)]
    times = {name: [] for name in functions}
    for run in range(args.runs + 1):
        for name, function in functions.items():
            start = time.process_time()
            for batch in batches:
                function(batch)
            if run:
                times[name].append(time.process_time() - start)
    return {name: args.images / statistics.median(values) for name, values in times.items()}


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    warnings.simplefilter('ignore')
    with tempfile.TemporaryDirectory() as temporary:
        datasets.config.HF_DATASETS_CACHE = Path(temporary) / 'tables'
        datasets.disable_progress_bars()
        folder = Path(temporary) / 'images'
        size = write_images(folder, args)
        pack_all(folder, args.size)
        write_shards(folder)
        print(
            f'{args.images} JPEGs of {args.width} x {args.height}, {size:.0f} kB on average, to {args.size} x {args.size};'
            f' OpenCV {cv2.__version__}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}'
        )
        for crop in ('center', 'random'):
            found = rates(readers(folder, args, crop) | {'bare copy': copying(args)}, args)
            print(f'{crop} crop')
            for name, rate in found.items():
                print(
                    f'{name:>26}: {rate:9,.0f} images/s and core   ldae / it = {found["folder"] / rate:6.2f}'
                    f'   it / {PEER} = {rate / found[PEER]:6.2f}   {rate / found["bare copy"]:7.2%} of the bare copy'
                )


if __name__ == '__main__':
    main()
