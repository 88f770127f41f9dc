# SPDX-License-Identifier: Apache-2.0
"""What the host of one process among W does as processes and images grow, simulated by a single one that takes itself for the
last of W.

    python benchmarks/host_at_scale.py                                          # up to 1024 processes, 10 million images
    python benchmarks/host_at_scale.py --processes 1024 --images 100000000      # 8 GB of memory for the peer

Three things are measured: drawing a step's noise, beside one generator that draws for all processes; the order of an epoch,
beside mmengine's sampler; and what a process keeps of a data set's listing. Processor time, medians of rounds in turn; peak
memory of a process that does nothing else (Linux). What follows from formulas alone is in docs/scaling.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from _timing import medians, times_in_turn
from mmengine.dataset import DefaultSampler
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader

from ldae.datasets import ImageFolder
from ldae.engine.resume.data_order import install_order
from ldae.models import GaussianNoiser

PATCHES, CHANNELS = 256, 32  # of the noise: l-DAE's at 256 pixels


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--processes', type=int, nargs='+', default=[1, 8, 64, 1024])
    parser.add_argument('--images', type=int, nargs='+', default=[1_000_000, 10_000_000])
    parser.add_argument('--batch-size', type=int, default=2048, help='of all processes together')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--measure', nargs=3, metavar=('WAY', 'PROCESSES', 'IMAGES'), help=argparse.SUPPRESS)
    return parser.parse_args()


def noise_table(args: argparse.Namespace) -> None:
    """Milliseconds of a step's time steps and noise on one process."""
    torch.set_num_threads(1)
    noiser = GaussianNoiser(draw_by='row').train()
    print(f'\nNoise of a step: a batch of {args.batch_size} of all processes, {PATCHES} patches, d = {CHANNELS}; ms')
    print(f'{"processes":>10} {"batch of one":>13} {"of its rows":>12} {"of all rows":>12} {"ratio":>7}')
    for world in args.processes:
        ways = dict(ours=partial(noiser, torch.zeros(args.batch_size // world, PATCHES, CHANNELS)))
        ways['peer'] = partial(noise_of_all_rows, args.batch_size, world)
        as_last = mock.patch.multiple('mmengine.dist', get_world_size=lambda: world, get_rank=lambda: world - 1)  # noqa: B023
        with as_last:
            times = times_in_turn(ways, args.rounds)
        ours, peer = medians(times).values()
        print(f'{world:>10} {args.batch_size // world:>13} {1e3 * ours:>12.2f} {1e3 * peer:>12.2f} {ours / peer:>7.3f}')
    print(f'Beside one stream for all rows, at {world} processes: ldae / it = {ours / peer:.3f}')


def noise_of_all_rows(batch_size: int, world: int) -> torch.Tensor:
    """What one stream for all processes takes."""
    torch.randint(1000, (batch_size,))
    return torch.randn(batch_size, PATCHES, CHANNELS)[world - 1 :: world]


def measure(way: str, world: int, images: int) -> None:
    """Print seconds to the first indices of an epoch, and bytes of memory that it took at most, of one way."""
    torch.set_num_threads(1)
    info = mock.patch('mmengine.dataset.sampler.get_dist_info', return_value=(world - 1, world))
    with info, mock.patch('ldae.engine.resume.data_order.get_dist_info', return_value=(world - 1, world)):
        loader = DataLoader(range(images), 4, sampler=DefaultSampler(range(images), seed=0))
        order = install_order(loader, 0) if way == 'ours' else loader.sampler
    before, start = memory('VmRSS'), time.process_time()
    Path('/proc/self/clear_refs').write_text('5')  # the peak begins anew
    next(iter(order))
    print(json.dumps([time.process_time() - start, memory('VmHWM') - before]))


def memory(name: str) -> int:
    """Bytes of this process, as Linux counts them."""
    line = next(line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def order_table(args: argparse.Namespace) -> None:
    """Seconds and bytes of the order of an epoch on one process."""
    world = max(args.processes)
    print(f'\nOrder of an epoch on one of {world} processes')
    print(f'{"images":>13} {"ours, s":>9} {"mmengine, s":>12} {"ratio":>7} {"ours, MB":>9} {"mmengine, MB":>13}')
    for images in args.images:
        found: dict[str, list] = dict(ours=[], mmengine=[])
        for _ in range(args.rounds):
            for way, values in found.items():
                command = [sys.executable, __file__, '--measure', way, str(world), str(images)]
                out = subprocess.run(command, capture_output=True, text=True, check=True, env=one_thread())
                values.append(json.loads(out.stdout.splitlines()[-1]))
        (own, mine), (peer, theirs) = (map(statistics.median, zip(*values, strict=True)) for values in found.values())
        print(f'{images:>13,} {own:>9.2f} {peer:>12.2f} {own / peer:>7.2f} {mine / 1e6:>9.0f} {theirs / 1e6:>13.0f}')


def one_thread() -> dict[str, str]:
    return dict(os.environ, OMP_NUM_THREADS='1')


def listing_table(images: int = 100_000) -> None:
    """Bytes that a process keeps of each image of a data set."""
    init_default_scope('mmpretrain')
    with tempfile.TemporaryDirectory() as folder:
        names = (f'n{i // 1300:08d}/n{i // 1300:08d}_{i}.JPEG {i // 1300}' for i in range(images))
        Path(folder, 'train.txt').write_text('\n'.join(names))
        dataset = ImageFolder(folder, 'train', ann_file='train.txt')
        dataset.full_init()
        kept = (dataset.data_bytes.nbytes + dataset.data_address.nbytes) / images
    print(
        f"\nListing: {kept:.0f} bytes an image of a folder with ImageNet's names, on each process; workers share them"
    )


def main() -> None:
    args = parse_args()
    if args.measure:
        way, world, images = args.measure
        measure(way, int(world), int(images))
        return
    noise_table(args)
    order_table(args)
    listing_table()


if __name__ == '__main__':
    main()
