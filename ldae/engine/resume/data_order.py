# SPDX-License-Identifier: Apache-2.0
"""The order of the training images, and a step's random numbers, from any place in a run."""

from collections.abc import Iterator
from itertools import islice

import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.dist import get_dist_info, get_rank
from mmengine.runner import Runner
from torch.utils.data import BatchSampler, DataLoader, Sampler

from ldae.engine.hook import Batch, LDAEHook
from ldae.registry import HOOKS
from ldae.utils.rng import Draws, seed_everything, seed_of

#: Indices that become Python's integers at a time.
CHUNK = 4096


class DataOrder(Sampler):
    """A batch sampler that starts where a stopped run ended, without reading what came before, and tells each sample
    what to draw its augmentation from; it takes the place of a loader's batches by :func:`install_order`. ``epoch``
    is the number of the pass over the data, set by whoever iterates, ``start`` how many samples of this process the
    next iteration leaves out, ``taken`` how many batches were trained on since."""

    def __init__(self, loader: DataLoader, seed: int) -> None:
        self.batch_sampler, self.seed = loader.batch_sampler, seed
        self.sampler = getattr(self.batch_sampler, 'sampler', loader.sampler)
        self.batch_size = getattr(self.batch_sampler, 'batch_size', 1)
        self.rank, self.world = get_dist_info()
        self.epoch = self.start = self.taken = 0

    def __len__(self) -> int:
        """Batches of a whole pass, as the loader's length was before."""
        return len(self.batch_sampler)

    @property
    def is_infinite(self) -> bool:
        """Whether a pass never ends."""
        return isinstance(self.sampler, InfiniteSampler)

    def __iter__(self) -> Iterator[Draws]:
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(self.epoch)
        place = self.start
        for indices in self._batches():
            yield Draws(indices, self.seed, self.epoch, place * self.world + self.rank, self.world)
            place += len(indices)

    def _batches(self) -> Iterator[list[int]]:
        if type(self.batch_sampler) is not BatchSampler:
            yield from islice(self.batch_sampler, self.start // self.batch_size, None)
            return
        if self.is_infinite:
            indices = infinite_from(self.sampler, self.start)
        elif type(self.sampler) is DefaultSampler:
            indices = default_from(self.sampler, self.start)
        else:
            indices = islice(self.sampler, self.start, None)
        while batch := list(islice(indices, self.batch_size)):
            if len(batch) == self.batch_size or not self.batch_sampler.drop_last:
                yield batch

    def first_batch(self) -> int:
        """The number of the batch that comes next, such that an epoch's last one has the number that it always has."""
        left = max(len(self.sampler) - self.start, 0)
        drop_last = getattr(self.batch_sampler, 'drop_last', False)
        return max(len(self) - (left // self.batch_size if drop_last else -(-left // self.batch_size)), 0)

    def position(self) -> dict:
        """Where the order is, for a checkpoint: what was trained on, in samples of all processes in this pass."""
        samples = self.start + self.taken * self.batch_size
        if not self.is_infinite:
            samples = min(samples, len(self.sampler))
        place = dict(seed=self.seed, sampler_seed=getattr(self.sampler, 'seed', None), epoch=self.epoch)
        return dict(place, samples=samples * self.world, world_size=self.world, batch_size=self.batch_size)

    def move_to(self, position: dict) -> list[str]:
        """Go on after what :meth:`position` describes; return what differs from the run that was stopped, in words."""
        self.seed = position['seed']
        if position['sampler_seed'] is not None and hasattr(self.sampler, 'seed'):
            self.sampler.seed = position['sampler_seed']
        self.epoch, self.taken = position['epoch'], 0
        self.start, left_out = -(-position['samples'] // self.world), -position['samples'] % self.world
        before, now = (position['world_size'], position['batch_size']), (self.world, self.batch_size)
        notes = []
        if before != now:
            notes.append('{} x {} images a step, before {} x {}'.format(*now, *before))
        if before[0] != now[0]:
            notes.append('sums are taken in another order, equal to rounding only')
        if before[0] * before[1] != now[0] * now[1]:
            notes.append('steps, and schedules by step, count other numbers of images')
        if left_out:
            notes.append(f'{left_out} images are left out')
        return notes


def install_order(loader: DataLoader, seed: int) -> DataOrder:
    """Let a DataLoader of a map-style data set take its batches from a new :class:`DataOrder`."""
    order = DataOrder(loader, seed)
    # A DataLoader refuses to be given another batch sampler, and building it anew would lose its options.
    vars(loader)['batch_sampler'] = order
    return order


def order_of(loader: DataLoader) -> DataOrder | None:
    """The order that :func:`install_order` has given a loader."""
    order = getattr(loader, 'batch_sampler', None)
    return order if isinstance(order, DataOrder) else None


def default_from(sampler: DefaultSampler, start: int) -> Iterator[int]:
    """mmengine's DefaultSampler after its first ``start`` indices, without a Python list of all images on every process."""
    size, generator = len(sampler.dataset), torch.Generator().manual_seed(sampler.seed + sampler.epoch)
    order = torch.randperm(size, generator=generator) if sampler.shuffle else torch.arange(size)
    places = torch.arange(sampler.rank, max(sampler.rank, sampler.total_size), sampler.world_size)[start:]
    order = order[places % size]  # the last round begins anew
    for part in order.split(CHUNK):
        yield from part.tolist()


def infinite_from(sampler: InfiniteSampler, start: int) -> Iterator[int]:
    """mmengine's InfiniteSampler after its first ``start`` indices, without counting them off one by one."""
    generator = torch.Generator().manual_seed(sampler.seed)
    passes, place = divmod(start * sampler.world_size + sampler.rank, sampler.size)
    for _ in range(passes if sampler.shuffle else 0):
        torch.randperm(sampler.size, generator=generator)
    while True:
        order = torch.randperm(sampler.size, generator=generator) if sampler.shuffle else torch.arange(sampler.size)
        mine = order[place :: sampler.world_size]
        yield from mine.tolist()
        place += len(mine) * sampler.world_size - sampler.size


@HOOKS.register_module()
class StepSeedHook(LDAEHook):
    """Seed torch, numpy and Python before each training epoch and step, from the run's seed, the epoch's or step's number
    and, where ``randomness.diff_rank_seed`` is set, the rank.

    mmengine restores a resumed run's seed but not how far its random streams had got: noise that was drawn already
    would be drawn again. Here step i draws the same numbers whether or not the run was interrupted before it. What is
    drawn while data are read is seeded by sample (:class:`ldae.engine.resume.data_order.DataOrder`)."""

    # Before anything that may draw.
    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner: Runner) -> None:
        self._seed(runner, f'epoch {runner.epoch}')  # of the first batch, where no worker reads it

    def before_train_iter(self, runner: Runner, batch_idx: int, **step: Batch) -> None:
        self._seed(runner, f'step {runner.iter}')

    def _seed(self, runner: Runner, moment: str) -> None:
        rank = get_rank() if runner._randomness_cfg.get('diff_rank_seed') else 0
        seed_everything(seed_of(runner.seed, moment, rank))
