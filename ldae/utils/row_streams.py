# SPDX-License-Identifier: Apache-2.0
"""Random numbers that follow from a key and a row's number: each process draws the rows that are its own, and no others.

Torch's generators can only be read from the start. Here the n-th number of a row is SplitMix64's (Steele, Lea and Flood 2014,
"Fast splittable pseudorandom number generators") for a seed that is itself SplitMix64's for the key and the row."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

#: 2^64 over the golden ratio, and the two factors of SplitMix64's last step, as signed numbers: int64 wraps.
GOLDEN_RATIO, FACTORS = (0x9E3779B97F4A7C15 - 2**64, (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64))


def golden_steps(numbers: Tensor) -> Tensor:
    """``numbers`` times 2^64 over the golden ratio, int64.

    torch.compile writes a range times a number as an index of a loop in C++, where a signed number must not wrap: the
    compiler leaves out the end of such a loop. With a bitwise operation between, it is an index no more."""
    return (numbers ^ 0) * GOLDEN_RATIO


def row_streams(key: Tensor, rows: Tensor) -> Tensor:
    """Seeds (B,) of the streams of some rows (B,), under a key (), all int64."""
    return _mix(key + golden_steps(rows + 1))


def random_bits(streams: Tensor, count: int) -> Tensor:
    """The first ``count`` numbers of each stream (B,): int64 (B, count)."""
    return _mix(streams[:, None] + golden_steps(torch.arange(1, count + 1, device=streams.device)))


def uniform(streams: Tensor, count: int) -> Tensor:
    """Float32 in [0, 1), (B, count)."""
    return _shifted(random_bits(streams, count), 40).float() * 2.0**-24


def integers(streams: Tensor, high: int, shape: Sequence[int] = ()) -> Tensor:
    """Some of 0 ... high - 1 for each stream: (B, *shape); high below 2^31."""
    bits = random_bits(streams, math.prod(shape)).reshape(len(streams), *shape)
    return _shifted(_shifted(bits, 33) * high, 31)


def standard_normal(streams: Tensor, shape: Sequence[int]) -> Tensor:
    """Float32 (B, *shape), by Box and Muller's transform of two halves of a number each."""
    count = math.prod(shape)
    bits = random_bits(streams, -(-count // 2))
    radius = _shifted(bits, 32).float().add_(0.5).mul_(2.0**-32).log_().mul_(-2).sqrt_()
    angle = bits.bitwise_and_(2**32 - 1).float().mul_(2 * math.pi * 2.0**-32)
    pairs = torch.cat([radius * angle.cos(), radius * angle.sin_()], dim=1)
    return pairs[:, :count].unflatten(1, tuple(shape))


def _mix(x: Tensor) -> Tensor:
    for shift, factor in zip((30, 27), FACTORS, strict=True):
        x = (x ^ _shifted(x, shift)).mul_(factor)
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Shifted to the right as an unsigned number is."""
    return (x >> bits).bitwise_and_(2 ** (64 - bits) - 1)
