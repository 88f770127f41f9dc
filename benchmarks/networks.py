# SPDX-License-Identifier: Apache-2.0
"""A training step of each network that ``--scale auto`` chooses from, in float32, and in bfloat16 where the CPU has it.

    OMP_NUM_THREADS=1 python benchmarks/networks.py

Prints the processor's time for an image, and how many times that of the smallest network it is. Images are made up, so reading
is left out: ``benchmarks/input.py`` measures that.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.registry import init_default_scope

from ldae.config import load_config
from ldae.launch import LaunchOptions, auto, prepare
from ldae.utils.device import has_bf16

CONFIG = 'ldae::ldae/vit-b_pca.py'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--networks', type=int, default=len(auto.LADDER), help='so many, from the smallest on')
    parser.add_argument(
        '--values', type=int, default=150_000, help='tokens x width of a batch, at most; at least 4 images'
    )
    parser.add_argument('--steps', type=int, default=3)
    return parser.parse_args()


def make_step(choice: auto.Choice, precision: str) -> Callable[[], object]:
    """A training step of a network on made-up images of its size."""
    survey = auto.Survey('.', 1000, choice.img_size, 10, has_val=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / auto.FILENAME
        path.write_text(auto.scale_text(survey, choice))
        cfg = prepare(load_config(CONFIG, scale=path), LaunchOptions(precision=precision))
    init_default_scope('mmpretrain')
    shape = (choice.batch_size, 3, choice.img_size, choice.img_size)
    return auto._step_of(cfg, torch.randint(256, shape, dtype=torch.uint8))


def seconds(step: Callable[[], object], steps: int) -> float:
    """Of the processor, the median of some steps after one."""
    times = []
    for _ in range(steps + 1):
        start = time.process_time()
        step()
        times.append(time.process_time() - start)
    return statistics.median(times[1:])


def main() -> None:
    args = parse_args()
    smallest = {}
    for rung in auto.LADDER[: args.networks]:
        batch = min(16, max(4, args.values // (rung.grid**2 * rung.width)))
        choice = auto.Choice(rung, 16 * rung.grid, batch)
        print(f'{rung} on {choice.img_size} px, {rung.grid**2} patches')
        for precision in ('fp32', 'bf16') if has_bf16('cpu') else ('fp32',):
            cost = seconds(make_step(choice, precision), args.steps) / batch
            first = smallest.setdefault(precision, cost)
            print(
                f'  {precision}: {1000 * cost:8.1f} ms an image   the smallest network   ldae / it = {cost / first:.2f}'
            )


if __name__ == '__main__':
    main()
