# SPDX-License-Identifier: Apache-2.0
import random
from types import SimpleNamespace

import numpy as np
import torch

from ldae.engine import StepSeedHook
from ldae.engine.resume.data_order import seed_of


def draws(step: int, seed: int = 0, **randomness) -> tuple:
    runner = SimpleNamespace(seed=seed, iter=step, _randomness_cfg=randomness)
    StepSeedHook().before_train_iter(runner, 0)
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()


def test_a_step_draws_the_same_whatever_was_drawn_before():
    first = draws(7)
    torch.rand(5)
    assert draws(7) == first
    for other in (draws(8), draws(7, seed=1)):
        assert all(a != b for a, b in zip(first, other, strict=True))


def test_ranks_share_their_stream_unless_asked_otherwise(monkeypatch):
    alone = draws(7)
    monkeypatch.setattr('ldae.engine.resume.data_order.get_rank', lambda: 1)
    assert draws(7, diff_rank_seed=False) == alone
    assert draws(7, diff_rank_seed=True) != alone


def test_seeds_of_many_steps_are_distinct_and_their_first_draws_uniform():
    seeds = [seed_of(0, f'step {step}') for step in range(2000)]
    assert len(set(seeds)) == 2000
    firsts = torch.stack([torch.rand(1, generator=torch.Generator().manual_seed(seed)) for seed in seeds]).flatten()
    counts = torch.histc(firsts, 10, 0, 1)
    assert ((counts - 200) ** 2 / 200).sum() < 27.9  # chi-square, 9 degrees of freedom, 99.9%
    assert torch.corrcoef(torch.stack([firsts[:-1], firsts[1:]]))[0, 1].abs() < 0.08
