# SPDX-License-Identifier: Apache-2.0
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from scipy import stats

from ldae.utils.row_streams import integers, random_bits, row_streams, standard_normal, uniform

#: What SplitMix64 gives for the seed 1234567: the published test vector.
PUBLISHED = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]


def splitmix(seed: int, count: int) -> list[int]:
    """As in Steele, Lea and Flood (2014), in integers without end."""
    found, full = [], 2**64
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) % full
        z = (seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9 % full
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % full
        found.append(z ^ (z >> 31))
    return found


def unsigned(numbers: torch.Tensor) -> list[int]:
    return [number % 2**64 for number in numbers.tolist()]


def test_a_stream_is_splitmix64():
    assert unsigned(random_bits(torch.tensor([1234567]), 5)[0]) == PUBLISHED == splitmix(1234567, 5)
    streams = row_streams(torch.tensor(99), torch.arange(6))
    assert unsigned(streams) == splitmix(99, 6)
    for stream, bits in zip(unsigned(streams), random_bits(streams, 4), strict=True):
        assert unsigned(bits) == splitmix(stream, 4)


def test_normal_numbers_are_box_and_mullers_of_the_halves_of_a_number():
    (found,) = standard_normal(torch.tensor([1234567]), (3, 3))
    radii, angles = [], []
    for number in splitmix(1234567, 5):
        radii.append(math.sqrt(-2 * math.log(((number >> 32) + 0.5) / 2**32)))
        angles.append(2 * math.pi * (number % 2**32) / 2**32)
    expected = [r * f(a) for f in (math.cos, math.sin) for r, a in zip(radii, angles, strict=True)]
    torch.testing.assert_close(found.flatten(), torch.tensor(expected[:9]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('key', [0, 1, 2**62])
def test_numbers_are_of_their_distributions_and_rows_do_not_resemble(key):
    streams = row_streams(torch.tensor(key), torch.arange(400))
    normal = standard_normal(streams, (500,)).double()
    assert stats.kstest(normal.flatten().numpy(), 'norm').pvalue > 1e-3
    assert stats.kstest(uniform(streams, 500).flatten().numpy(), 'uniform').pvalue > 1e-3
    counts = torch.bincount(integers(row_streams(torch.tensor(key), torch.arange(20000)), 10), minlength=10)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    for matrix in (normal, normal.T):  # rows among each other, and places
        correlation = torch.corrcoef(matrix)
        off = correlation[~torch.eye(len(correlation), dtype=torch.bool)]
        assert off.abs().max() < 5.5 / matrix.shape[1] ** 0.5
        assert off.std().item() == pytest.approx(matrix.shape[1] ** -0.5, rel=0.03)


def test_neighbouring_keys_share_no_number():
    streams = torch.stack([row_streams(torch.tensor(key), torch.arange(100)) for key in range(20)])
    assert random_bits(streams.flatten(), 50).unique().numel() == 20 * 100 * 50


def test_integers_stay_below_the_end_and_uniform_numbers_below_one():
    streams = row_streams(torch.tensor(3), torch.arange(100_000))
    assert integers(streams, 1).unique().tolist() == [0]
    found = integers(streams, 1000)
    assert (found.min(), found.max()) == (0, 999)
    assert uniform(streams, 10).max() < 1


COMPILED = """
import torch
from ldae.utils.row_streams import integers, row_streams, standard_normal


def draw(key, rows):
    streams = row_streams(key, torch.arange(rows))
    return standard_normal(streams, (3, 5)), integers(streams, 1000)


key = torch.tensor(99)
torch.testing.assert_close(torch.compile(draw)(key, 40), draw(key, 40))
"""


@pytest.mark.skipif(not shutil.which(os.environ.get('CXX', 'g++')), reason='torch compiles with a C++ compiler')
def test_compiled_code_draws_the_same_and_stays_within_its_rows(tmp_path: Path):
    """In a process of its own: a loop that doesn't end, for a number that may not wrap, writes until it is killed."""
    environment = dict(os.environ, TORCHINDUCTOR_CACHE_DIR=str(tmp_path))
    done = subprocess.run([sys.executable, '-c', COMPILED], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
