# SPDX-License-Identifier: Apache-2.0
"""Several sets of features of the same images, read piece by piece and standardised."""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

#: Rows that are read at a time where all are looked at once.
BLOCK = 8192
#: Neighbouring rows that stay together when more rows than fit are shuffled: long enough to be read quickly.
RUN = 64


class Features(Protocol):
    """Features (n, C), or patch tokens (n, N, C): a tensor is some, and so are those of a cache."""

    shape: torch.Size

    def __getitem__(self, rows: slice | Tensor) -> Tensor: ...


#: Sets of features of the same images, by key.
Sets = Mapping[Hashable, Features]


def mean_and_scale(features: Features) -> tuple[Tensor, Tensor]:
    """Mean (C,) and 1 / standard deviation (C,), which is 0 for a constant feature, over rows and tokens; one pass,
    float64 inside."""
    origin = (
        features[:1].double().flatten(0, -2)[:1]
    )  # near the mean, so that the difference of squares keeps its digits
    sums, squares = torch.zeros_like(origin[0]), torch.zeros_like(origin[0])
    tokens = math.prod(features.shape[1:-1])
    step = max(1, BLOCK // tokens)
    for start in range(0, features.shape[0], step):
        rows = features[start : start + step]
        rows, dtype = rows.double().flatten(0, -2) - origin, torch.promote_types(rows.dtype, torch.float32)
        sums += rows.sum(dim=0)
        squares += rows.square().sum(dim=0)
    count = features.shape[0] * tokens
    mean = sums / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    scale = torch.where(std > 1e-6 * std.max(), 1 / std, 0.0)
    return (mean + origin[0]).to(dtype), scale.to(dtype)


class FeatureStack:
    """G sets of features (n, C), standardised: zero mean and unit variance over the training images.

    Args:
        sets: Features of the same images, all of one width.
        moments: Mean and scale of each set; None takes those of ``sets``.
        device: Where rows are put; None leaves them where they are.
    """

    def __init__(
        self,
        sets: Sequence[Features],
        moments: Sequence[tuple[Tensor, Tensor]] | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self.sets, self.device = list(sets), device
        self.width = self.sets[0].shape[-1]
        self.moments = [mean_and_scale(one) for one in self.sets] if moments is None else list(moments)

    def __len__(self) -> int:
        return len(self.sets)

    def only(self, *numbers: int) -> 'FeatureStack':
        """The sets of these numbers."""
        sets, moments = zip(*((self.sets[i], self.moments[i]) for i in numbers), strict=True)
        return FeatureStack(sets, moments, self.device)

    def rows(self, numbers: Tensor | slice) -> Tensor:
        """Rows (G, R, C), or (G, R, N, C), of each set."""
        pairs = zip(self.sets, self.moments, strict=True)
        rows = [(one[numbers] - mean).mul_(scale).to(self.device) for one, (mean, scale) in pairs]
        return rows[0][None] if len(rows) == 1 else torch.stack(rows)  # which would copy a single one

    def blocks(self, numbers: Tensor, size: int = BLOCK) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows by number, in pieces: the numbers (R,) and the rows (G, R, C)."""
        for part in numbers.split(size):
            yield part, self.rows(part)

    def batches(
        self, numbers: Tensor, epochs: int, batch_size: int, generator: torch.Generator, capacity: int
    ) -> Iterator[tuple[Tensor, Tensor, float]]:
        """Shuffled batches of several epochs: numbers (B,), rows (G, B, C), and the share of training that is over.

        ``capacity`` rows are held in memory. If there are more, runs of neighbours are drawn in random order into a buffer
        of that size, which is shuffled."""
        whole = (numbers, self.rows(numbers)) if len(numbers) <= capacity else None
        capacity = max(1, capacity // batch_size) * batch_size
        steps = -(-len(numbers) // batch_size)
        for epoch in range(epochs):
            step = 0
            for held, rows in [whole] if whole else self._buffers(numbers, capacity, generator):
                order = torch.randperm(len(held), generator=generator)
                for places in order.split(batch_size):
                    batch = rows.index_select(1, places.to(rows.device))
                    yield held[places], batch, (epoch + step / steps) / epochs
                    step += 1

    def _buffers(self, numbers: Tensor, capacity: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """All rows once: numbers (R,) and rows (G, R, C), from all over the data set."""
        runs = numbers.sort().values.split(RUN)
        order = torch.randperm(len(runs), generator=generator).tolist()
        for part in torch.cat([runs[i] for i in order]).split(capacity):
            part = part.sort().values
            yield part, self.rows(part)
