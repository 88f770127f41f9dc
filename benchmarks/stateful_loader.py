# SPDX-License-Identifier: Apache-2.0
"""Whether torchdata's StatefulDataLoader gives what ldae's order of the data gives, and what either costs a step.

    pip install --no-deps torchdata==0.11.0            # without it, only ldae's is looked at
    python benchmarks/stateful_loader.py

A pass with two workers is broken off and gone on from with other numbers of workers, and by two processes instead of one.
What comes then is compared, sample by sample, with the pass that nothing happened to: which images, and what their
augmentation draws. Images that are read once more although they were trained on are counted.
"""

import argparse
import random
import statistics
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from unittest.mock import patch

import numpy as np
import torch
from mmengine.dataset import DefaultSampler
from mmengine.dataset import sampler as mmengine_sampler
from torch.utils.data import DataLoader, Dataset

from ldae.engine.resume import data_order
from ldae.utils.rng import seed_everything

try:
    from torchdata.stateful_dataloader import StatefulDataLoader
except ImportError:
    StatefulDataLoader = None

IMAGES, BATCH, TAKEN, WORKERS = 240, 4, 13, 2


class Drawing(Dataset):
    """Each sample is its index and what the three generators give for it; reads are counted, in all workers."""

    def __init__(self, size: int = IMAGES) -> None:
        self.reads = torch.zeros(size, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.reads)

    def __getitem__(self, index: int) -> tuple:
        self.reads[index] += 1
        return index, random.random(), np.random.rand(), torch.rand(()).item()


def options(data: Dataset, batch_size: int, workers: int) -> dict:
    sampler = DefaultSampler(data, shuffle=True, seed=5)
    return dict(batch_size=batch_size, sampler=sampler, collate_fn=list, num_workers=workers)


class Plain:
    """torch's loader, seeded before a pass as ldae.StepSeedHook does; it can't be gone on from."""

    kind = DataLoader

    def __init__(self, data: Dataset, batch_size: int, workers: int) -> None:
        self.loader = self.kind(data, **options(data, batch_size, workers))

    def __iter__(self) -> Iterator[list]:
        seed_everything(7)
        return iter(self.loader)


class Stateful(Plain):
    """torchdata's loader of the same sampler."""

    kind = StatefulDataLoader

    def state(self) -> dict:
        return self.loader.state_dict()

    def restore(self, state: dict) -> None:
        self.loader.load_state_dict(state)


class StatefulOfSeeds(Stateful):
    """torchdata's loader of batches that carry ldae's seeds, whose place it keeps."""

    def __init__(self, data: Dataset, batch_size: int, workers: int) -> None:
        order = data_order.DataOrder(DataLoader(data, **options(data, batch_size, 0)), seed=7)
        self.loader = StatefulDataLoader(data, batch_sampler=order, collate_fn=list, num_workers=workers)


class Ours(Plain):
    """torch's loader with ldae's order."""

    def __init__(self, data: Dataset, batch_size: int, workers: int) -> None:
        super().__init__(data, batch_size, workers)
        self.order = data_order.install_order(self.loader, seed=7)

    def __iter__(self) -> Iterator[list]:
        for batch in self.loader:
            self.order.taken += 1
            yield batch

    def state(self) -> dict:
        return self.order.position()

    def restore(self, state: dict) -> None:
        self.order.move_to(state)


@contextmanager
def as_process(rank: int, world: int) -> Iterator[None]:
    """Let samplers and orders believe that this is one of several processes."""
    with ExitStack() as stack:
        for module in (mmengine_sampler, data_order):
            stack.enter_context(patch.object(module, 'get_dist_info', lambda: (rank, world)))
        yield


def samples(reader: Plain) -> list[tuple]:
    return [sample for batch in reader for sample in batch]


def resumed(kind: type, workers: int, world: int) -> str:
    """What comes of going on after :data:`TAKEN` batches, in a few words."""
    whole = samples(kind(Drawing(), BATCH, WORKERS))[TAKEN * BATCH :]
    broken = kind(Drawing(), BATCH, WORKERS)
    batches = iter(broken)
    list(islice(batches, TAKEN))
    state, found, reads = broken.state(), [None] * len(whole), 0
    for rank in range(world):
        data = Drawing()
        try:
            with as_process(rank, world):
                reader = kind(data, BATCH // world, workers)
                reader.restore(state)
                mine = samples(reader)
        except Exception as error:
            return f'refused: {type(error).__name__} {error}'.strip()
        reads += int(data.reads.sum())
        if len(mine) != len(whole[rank::world]):
            return f'process {rank} of {world} gets {len(mine)} images, not {len(whole[rank::world])}'
        found[rank::world] = mine
    vain = f', {reads - len(whole)} images read once more' if reads > len(whole) else ''
    if [index for index, *_ in found] != [index for index, *_ in whole]:
        return f'other images{vain}'
    same = sum(a == b for a, b in zip(found, whole, strict=True))
    draws = f'other draws for {len(whole) - same} of {len(whole)}'
    return ('bit for bit' if same == len(whole) else draws) + vain


def seconds_a_batch(kind: type, workers: int, size: int, batch_size: int) -> float:
    """Processor time of the main process, which is what a step waits for, after the first batch; images cost nothing."""
    batches = iter(kind(Drawing(size), batch_size, workers))
    next(batches)
    start = time.process_time()
    count = sum(1 for _ in batches)
    return (time.process_time() - start) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--batches', type=int, default=100, help='that a round is timed over')
    parser.add_argument('--step-ms', type=float, default=30, help='step that the cost is a share of')
    args = parser.parse_args()
    warnings.filterwarnings('ignore', message='This DataLoader will create')
    theirs = (Stateful, StatefulOfSeeds) if StatefulDataLoader else ()
    for kind in (*theirs, Ours):
        print(f'{kind.__doc__.splitlines()[0]} Broken off with {WORKERS} workers, gone on from with')
        for workers in (2, 0, 1, 3):
            print(f'  {workers} workers, one process: {resumed(kind, workers, 1)}')
        print(f'  {WORKERS} workers, two processes: {resumed(kind, WORKERS, 2)}')
    for workers in (0, WORKERS):
        times = {kind: [] for kind in (Plain, *theirs, Ours)}
        for _ in range(args.rounds):
            for kind, values in times.items():
                values.append(1e3 * seconds_a_batch(kind, workers, args.batches * args.batch_size, args.batch_size))
        plain = statistics.median(times[Plain])
        print(f'{workers} workers, a batch of {args.batch_size}')
        for kind, values in times.items():
            median = statistics.median(values)
            share = (median - plain) / args.step_ms
            print(f"  {kind.__name__:16} {median:6.3f} ms; more than torch's own loader: {share:+.2%} of a step")


if __name__ == '__main__':
    main()
