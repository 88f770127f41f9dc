# SPDX-License-Identifier: Apache-2.0
"""Mean and covariance of a stream of rows, in memory that doesn't depend on its length."""

import math
from collections.abc import Sequence

import torch
from mmengine import dist
from torch import Tensor

from ldae.utils.precision import full_precision

#: Columns per product. ``X^T X`` is symmetric: of a block of its rows only the part from the diagonal on is computed.
BLOCK = 128


class StreamingCovariance:
    """Accumulate ``sum(x - s)`` and ``sum((x - s)(x - s)^T)`` around a fixed shift s.

    Products are taken in float32, where the machine is fast, over few enough rows to keep their rounding small; their
    sums are kept in float64. The shift is a pilot mean: it removes the cancellation in ``E[x x^T] - m m^T``, and being
    the same on all ranks it makes the all-reduced sums exact.

    Args:
        row_shape: Shape of a row; its D values are taken in row-major order. A row may be a strided view, as a patch of
            an image is: it is laid out by the copy that also takes the shift off.
        device: Where rows come from.
        chunk_size: Rows per product; about as many as fit the cache.
    """

    def __init__(
        self, row_shape: int | Sequence[int], device: torch.device | str = 'cpu', chunk_size: int = 4096
    ) -> None:
        self.row_shape = (row_shape,) if isinstance(row_shape, int) else tuple(row_shape)
        self.dim = math.prod(self.row_shape)
        self.chunk_size = chunk_size
        self.shift: Tensor | None = None
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.total = torch.zeros(self.dim, dtype=torch.float64, device=device)
        self.outer = torch.zeros(self.dim, self.dim, dtype=torch.float64, device=device)  # upper blocks only
        self._rows = torch.empty(0, device=device)  # the current chunk, written anew each time

    def update(self, rows: Tensor) -> None:
        """Add rows (..., *row_shape). In a distributed run every rank's first call must come together."""
        lead = tuple(range(rows.dim() - len(self.row_shape)))
        if self.shift is None:
            self.shift = rows.float().mean(dim=lead).contiguous()
            dist.broadcast(self.shift)
        rows_per_entry = math.prod(rows.shape[1 : len(lead)])
        with full_precision(rows.device):
            for chunk in rows.split(max(1, self.chunk_size // rows_per_entry)):
                for part in self._centre(chunk).split(self.chunk_size):
                    self._add(part)

    def _add(self, rows: Tensor) -> None:
        """Add contiguous rows (n, D), the shift taken off."""
        for start in range(0, self.dim, BLOCK):
            block = slice(start, start + BLOCK)
            self.outer[block, start:] += self._product(rows[:, block].t(), rows[:, start:])
        self.total += self._sum(rows)
        self.count += len(rows)

    def _centre(self, chunk: Tensor) -> Tensor:
        """``chunk - shift`` as contiguous rows (n, D), in a buffer that the next call overwrites."""
        return self._lay_out(chunk).sub_(self.shift).view(-1, self.dim)

    def _lay_out(self, chunk: Tensor) -> Tensor:
        """A contiguous copy of the chunk, in the buffer."""
        if self._rows.numel() < chunk.numel():
            self._rows = self._rows.new_empty(chunk.numel())
        return self._rows[: chunk.numel()].view(chunk.shape).copy_(chunk)

    def _product(self, a: Tensor, b: Tensor) -> Tensor:
        return a @ b

    def _sum(self, rows: Tensor) -> Tensor:
        return rows.sum(dim=0)

    def finalize(self) -> tuple[Tensor, Tensor, int]:
        """All-reduce and return mean (D,), unbiased covariance (D, D), both float64, and the number of rows."""
        for value in (self.count, self.total, self.outer):
            dist.all_reduce(value)
        mean = self.total / self.count
        outer = self.outer.triu() + self.outer.triu(1).t()
        covariance = (outer - self.count * torch.outer(mean, mean)) / (self.count - 1).clamp(min=1)
        return mean + self.shift.flatten(), covariance, int(self.count)
