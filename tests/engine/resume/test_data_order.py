# SPDX-License-Identifier: Apache-2.0
import random
from itertools import islice

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import DataLoader, Dataset

from ldae.engine.resume import data_order
from ldae.engine.resume.data_order import DataOrder, default_from, infinite_from, install_order


class Drawing(Dataset):
    """Each sample is its index and what the three generators give for it."""

    def __init__(self, size: int = 23) -> None:
        self.size, self.read = size, []

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple:
        self.read.append(index)
        return index, random.random(), np.random.rand(), torch.rand(()).item()


def loader_of(dataset: Dataset, batch_size: int = 4, sampler: type = DefaultSampler, **options) -> DataLoader:
    return DataLoader(dataset, batch_size, sampler=sampler(dataset, shuffle=True, seed=5), collate_fn=list, **options)


def samples(loader: DataLoader, start: int = 0, epoch: int = 1) -> list[tuple]:
    order = install_order(loader, seed=7) if not isinstance(loader.batch_sampler, DataOrder) else loader.batch_sampler
    order.start, order.epoch = start, epoch
    return [sample for batch in loader for sample in batch]


def ranks(monkeypatch, rank: int, world: int) -> None:
    for module in ('mmengine.dataset.sampler', 'ldae.engine.resume.data_order'):
        monkeypatch.setattr(f'{module}.get_dist_info', lambda: (rank, world))


def test_what_a_sample_draws_depends_neither_on_workers_nor_on_where_the_pass_began():
    whole = samples(loader_of(Drawing()))
    assert [index for index, *_ in whole] != sorted(index for index, *_ in whole)
    assert samples(loader_of(Drawing(), num_workers=2)) == whole
    assert samples(loader_of(Drawing()), start=8) == whole[8:]
    assert samples(loader_of(Drawing()), epoch=2) != whole
    for values in zip(*whole, strict=True):
        assert len(set(values)) == 23


def test_persistent_workers_draw_in_each_pass_what_new_ones_do():
    loader = loader_of(Drawing(), num_workers=1, persistent_workers=True)
    first, second = samples(loader), samples(loader, epoch=2)
    assert (first, second) == (samples(loader_of(Drawing())), samples(loader_of(Drawing()), epoch=2))


def test_what_was_trained_on_is_not_read_again():
    data = Drawing()
    rest = samples(loader_of(data), start=12)
    assert data.read == [index for index, *_ in rest]
    assert len(rest) == 11


def test_two_processes_draw_what_one_does(monkeypatch):
    whole = samples(loader_of(Drawing(24)))
    for rank in range(2):
        ranks(monkeypatch, rank, 2)
        assert samples(loader_of(Drawing(24), batch_size=2)) == whole[rank::2]


@pytest.mark.parametrize('drop_last', [False, True])
@pytest.mark.parametrize('taken', [0, 1, 5, 6])
def test_the_last_batch_has_the_number_that_it_always_has(drop_last, taken):
    loader = loader_of(Drawing(), drop_last=drop_last)
    order = install_order(loader, 0)
    order.start = 4 * taken
    assert len(loader) == (5 if drop_last else 6)
    assert order.first_batch() + len(list(loader)) == len(loader)


def test_an_order_goes_on_where_its_position_says():
    order = install_order(loader_of(Drawing()), 7)
    order.epoch, order.start, order.taken = 3, 4, 2
    moved = install_order(loader_of(Drawing()), 0)
    moved.sampler.seed = 0
    assert moved.move_to(order.position()) == []
    assert (moved.seed, moved.sampler.seed, moved.epoch, moved.start) == (7, 5, 3, 12)
    order.start, order.taken = 0, 6
    assert order.position()['samples'] == 23  # the last batch is a short one


def test_another_number_of_processes_goes_on_at_the_same_image(monkeypatch):
    whole = samples(loader_of(Drawing(24)))
    order = install_order(loader_of(Drawing(24)), 7)
    order.epoch, order.taken = 1, 3
    for rank in range(2):
        ranks(monkeypatch, rank, 2)
        loader = loader_of(Drawing(24), batch_size=2)
        moved = install_order(loader, 0)
        notes = moved.move_to(order.position())
        assert [sample for batch in loader for sample in batch] == whole[12:][rank::2]
        assert notes == ['2 x 2 images a step, before 1 x 4', 'sums are taken in another order, equal to rounding only']
    ranks(monkeypatch, 0, 5)
    notes = install_order(loader_of(Drawing(24)), 0).move_to(order.position())
    assert notes[2:] == ['steps, and schedules by step, count other numbers of images', '3 images are left out']


@pytest.mark.parametrize('shuffle', [True, False])
@pytest.mark.parametrize('world', [1, 3])
def test_the_endless_sampler_of_mmengine_from_any_place(monkeypatch, shuffle, world):
    for rank in range(world):
        ranks(monkeypatch, rank, world)
        data = Drawing(7)
        expected = list(islice(InfiniteSampler(data, shuffle, seed=3), 60))
        for start in (0, 1, 6, 7, 30):
            found = islice(infinite_from(InfiniteSampler(data, shuffle, seed=3), start), 60 - start)
            assert list(found) == expected[start:]


@pytest.mark.parametrize('shuffle', [True, False])
@pytest.mark.parametrize('round_up', [True, False])
@pytest.mark.parametrize('world', [1, 3, 16])
def test_the_sampler_of_mmengine_from_any_place(monkeypatch, shuffle, round_up, world):
    monkeypatch.setattr(data_order, 'CHUNK', 3)
    for rank in range(min(world, 7)):
        ranks(monkeypatch, rank, world)
        sampler = DefaultSampler(Drawing(7), shuffle, seed=3, round_up=round_up)
        sampler.set_epoch(2)
        expected = list(sampler)
        for start in (0, 1, len(expected)):
            assert list(default_from(sampler, start)) == expected[start:]
