# SPDX-License-Identifier: Apache-2.0
"""Leave the random streams alone, or start them anew at a known place."""

import functools
import hashlib
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import torch


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Give Python's, numpy's and torch's generators (CPU and all GPUs) back the states they had.

    What runs inside, such as an evaluation in the middle of training, then doesn't change what is drawn after it."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        # Without CUDA in use there is no state to keep, and asking would create a context on every GPU.
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def seed_of(seed: int, moment: str, rank: int = 0) -> int:
    """63 bits that look unrelated for neighbouring arguments."""
    digest = hashlib.blake2b(f'{seed}/{moment}/{rank}'.encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'big') >> 1


def seed_cpu(seed: int) -> None:
    """Seed Python, numpy and torch's CPU generator in microseconds: ``torch.manual_seed`` asks all devices too."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def seed_everything(seed: int) -> None:
    """Seed Python, numpy, torch's CPU generator and the devices of the accelerator in use.

    ``torch.manual_seed`` asks all kinds of devices, and formats the stack for each that isn't there: 1 ms in a training
    loop."""
    seed_cpu(seed)
    if (module := _accelerator()) is not None:
        getattr(module, 'manual_seed_all', module.manual_seed)(seed)


@functools.cache
def _accelerator() -> ModuleType | None:
    return torch.get_device_module() if torch.accelerator.is_available() else None


class Draws(list):
    """Indices of a batch. Iterating over them seeds this process before each, from the seed of the run, the number of
    the pass over the data and the sample's place in the order of all processes, so that what a sample's augmentation
    draws depends on nothing else. ``place`` is that of the first sample, ``stride`` from one to the next the number of
    processes.

    A DataLoader's worker, or the main process where there is none, iterates: ``[dataset[i] for i in batch]``. Data
    sets that serve whole batches call :meth:`seed_batch`."""

    def __init__(self, indices: Iterable[int], seed: int, epoch: int, place: int, stride: int = 1) -> None:
        super().__init__(indices)
        self.order = (seed, epoch, place, stride)

    def __iter__(self) -> Iterator[int]:
        seed, epoch, place, stride = self.order
        for n, index in enumerate(super().__iter__()):
            seed_cpu(seed_of(seed, f'sample {epoch} {place + n * stride}'))
            yield index

    def __reduce__(self) -> tuple:  # as it is sent to a worker; list's own would iterate, and seed, here
        return Draws, (self[:], *self.order)

    def seed_batch(self) -> None:
        """Seed this process once for the whole batch."""
        seed, epoch, place, _ = self.order
        seed_cpu(seed_of(seed, f'batch {epoch} {place}'))
