# SPDX-License-Identifier: Apache-2.0
"""Mean and covariance of a stream of rows, in memory that doesn't depend on its length."""

import torch
from mmengine import dist
from torch import Tensor


class StreamingCovariance:
    """Accumulate ``sum(x - s)`` and ``sum((x - s)(x - s)^T)`` around a fixed shift s.

    Products are taken in float32, where the machine is fast, over chunks short enough to keep their rounding small;
    sums over chunks are kept in float64. The shift is a pilot mean: it removes the cancellation in
    ``E[x x^T] - m m^T``, and being the same on all ranks it makes the all-reduced sums exact.

    Args:
        dim: Length D of a row.
        device: Where rows come from.
        chunk_size: Rows per float32 product.
    """

    def __init__(self, dim: int, device: torch.device | str = 'cpu', chunk_size: int = 8192) -> None:
        self.chunk_size = chunk_size
        self.shift: Tensor | None = None
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.total = torch.zeros(dim, dtype=torch.float64, device=device)
        self.outer = torch.zeros(dim, dim, dtype=torch.float64, device=device)

    def update(self, rows: Tensor) -> None:
        """Add rows (n, D). In a distributed run every rank's first call must come together."""
        rows = rows.float()
        if self.shift is None:
            self.shift = rows.mean(dim=0)
            dist.broadcast(self.shift)
        for chunk in rows.split(self.chunk_size):
            centred = chunk - self.shift
            self.outer += centred.t() @ centred
            self.total += centred.sum(dim=0)
            self.count += len(chunk)

    def finalize(self) -> tuple[Tensor, Tensor, int]:
        """All-reduce and return mean (D,), unbiased covariance (D, D), both float64, and the number of rows."""
        for value in (self.count, self.total, self.outer):
            dist.all_reduce(value)
        mean = self.total / self.count
        covariance = (self.outer - self.count * torch.outer(mean, mean)) / (self.count - 1).clamp(min=1)
        return mean + self.shift, covariance, int(self.count)
