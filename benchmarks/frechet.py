# SPDX-License-Identifier: Apache-2.0
"""The pass of the Fréchet distance: what its moments cost beside features alone, and memory for few and for many images.

    python benchmarks/frechet.py                                             # 1000 and 4000 images of 64 x 64, ResNet-18
    python benchmarks/frechet.py --features inception_v3 --size 299 --device cuda

Weights are random, which costs the same. Reading, features, mean and covariance are called in turn with a loop of features
alone; the median of ``--runs`` counts. Memory is what the process (or the GPU) holds at most beyond what it held before.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
from _timing import machine, medians, peak_memory, times_in_turn

from ldae.generation import Extractor, build_extractor, compute_statistics, open_images


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--features', default='resnet18', help='network of timm')
    parser.add_argument('--images', type=int, nargs='+', default=[1000, 4000])
    parser.add_argument('--size', type=int, default=64, help='of the images, and what the network is given')
    parser.add_argument('--batch-size', type=int, default=50)
    parser.add_argument('--subset', type=int, default=500, help='images whose features are kept')
    parser.add_argument('--runs', type=int, default=3)
    parser.add_argument('--device', default='cpu')
    return parser.parse_args()


def features_alone(path: Path, extractor: Extractor, batch_size: int) -> None:
    """The same images through the same network, and nothing kept."""
    for batch in open_images(path).batches(batch_size):
        extractor.run(batch)


def main() -> None:
    args = parse_args()
    torch.manual_seed(0)
    size = dict(input_size=(3, args.size, args.size), crop_pct=1.0)
    network = timm.create_model(args.features, num_classes=0, pretrained_cfg_overlay=size).eval()
    extractor = build_extractor(network, device=args.device)
    print(f'{args.features}, images of {args.size} x {args.size}, {machine(args.device)}')
    with tempfile.TemporaryDirectory() as folder:
        paths = {count: Path(folder) / f'{count}.npz' for count in args.images}
        rng = np.random.default_rng(0)
        for count, path in paths.items():
            np.savez(path, rng.integers(0, 256, (count, args.size, args.size, 3), dtype=np.uint8))
        options = dict(subset=args.subset, batch_size=args.batch_size)
        least = paths[min(args.images)]
        functions = {
            'ldae': lambda: compute_statistics(open_images(least), extractor, **options),
            'features alone': lambda: features_alone(least, extractor, args.batch_size),
        }
        times = medians(times_in_turn(functions, args.runs, args.device))
        share = 1 - times['features alone'] / times['ldae']
        for name, value in times.items():
            print(
                f'{name:>14}: {min(args.images) / value:8.1f} images/s   ldae / it = {times[name] / times["ldae"]:.3f}'
            )
        print(f'mean, covariance and choice of rows take {share:.1%} of the pass over features alone')
        for count, path in paths.items():
            memory = peak_memory(
                lambda path=path: compute_statistics(open_images(path), extractor, **options), args.device
            )
            print(f'{count:6} images: {memory:.0f} MiB at most')


if __name__ == '__main__':
    main()
