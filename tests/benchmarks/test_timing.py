# SPDX-License-Identifier: Apache-2.0
import math

import pytest
import torch
from _timing import machine, medians, peak_memory, product, times_in_turn


def test_functions_are_called_in_turn_and_warm_up_does_not_count():
    calls = []
    times = times_in_turn(dict(a=lambda: calls.append('a'), b=lambda: calls.append('b')), rounds=3)
    assert ''.join(calls) == 'ab' * 4
    assert {name: len(values) for name, values in times.items()} == dict(a=3, b=3)
    assert min(min(values) for values in times.values()) >= 0


def test_medians_ignore_one_slow_round():
    assert medians(dict(a=[1.0, 100.0, 2.0])) == dict(a=2.0)


def test_a_product_counts_its_operations():
    function, count = product('cpu', torch.float32, size=8)
    assert count == 2 * 8**3
    assert function()[0].shape == (8, 8)


def test_the_peak_of_memory_is_that_of_the_call():
    mib = peak_memory(lambda: torch.ones(16 * 2**20))  # 64 MiB
    if math.isnan(mib):
        pytest.skip('the system does not tell')
    assert 60 < mib < 80
    assert peak_memory(lambda: None) < 5


def test_the_machine_is_described():
    assert f'torch {torch.__version__}' in machine()
