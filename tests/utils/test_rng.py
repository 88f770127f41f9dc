# SPDX-License-Identifier: Apache-2.0
import random

import numpy as np
import pytest
import torch

from ldae.utils.rng import preserved_rng, seed_everything


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_random_streams_go_on_as_if_nothing_had_been_drawn():
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    expected = draw()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    with preserved_rng():
        assert draw() == expected
    assert draw() == expected


def fail_after_drawing():
    with preserved_rng():
        draw()
        raise RuntimeError


def test_also_when_the_block_fails():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError):
        fail_after_drawing()
    assert torch.equal(torch.get_rng_state(), before)


def test_seeding_all_streams_draws_what_seeding_each_draws():
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(7)
    expected = draw()
    seed_everything(7)
    assert draw() == expected
