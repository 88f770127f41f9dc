# SPDX-License-Identifier: Apache-2.0
"""Mean and covariance of a stream of rows, in memory that doesn't depend on its length; exact for 8-bit pixels."""

import math
import timeit
from collections.abc import Sequence
from functools import cache

import torch
from mmengine import dist
from torch import Tensor

from ldae.utils.device import full_precision

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


#: Taken off 8-bit values, which makes them signed: -128 to 127.
SHIFT = 128
#: Rows of which a sum of products is exact in float32 (24 bits), and in int32.
FLOAT_ROWS = 2**24 // SHIFT**2
BYTE_ROWS = 2**31 // SHIFT**2 - 1


class PixelCovariance(StreamingCovariance):
    """Mean and covariance of uint8 rows, from sums of ``x - 128`` and of its products, all of them exact integers;
    options are those of :class:`StreamingCovariance`, ``chunk_size`` being cut to what is exact.

    The result so depends neither on the order of rows nor on chunks, processes or the machine (up to 2^39 rows). A
    CPU with an instruction for products of bytes uses it (``use_bytes``: None does where that is faster); elsewhere
    float32 products of so few rows are taken that nothing is rounded."""

    def __init__(
        self,
        row_shape: int | Sequence[int],
        device: torch.device | str = 'cpu',
        chunk_size: int = 4096,
        use_bytes: bool | None = None,
    ) -> None:
        if use_bytes is None:
            use_bytes = torch.device(device).type == 'cpu' and byte_products_pay()
        super().__init__(row_shape, device, min(chunk_size, BYTE_ROWS if use_bytes else FLOAT_ROWS))
        self.use_bytes = use_bytes
        self.shift = torch.full((), float(SHIFT), device=device)
        if use_bytes:
            self._rows = self._rows.byte()

    def _centre(self, chunk: Tensor) -> Tensor:
        if not self.use_bytes:
            return super()._centre(chunk)
        # Of 8-bit integers, flipping the highest bit is the subtraction.
        return self._lay_out(chunk).bitwise_xor_(SHIFT).view(torch.int8).view(-1, self.dim)

    def _product(self, a: Tensor, b: Tensor) -> Tensor:
        return torch._int_mm(a, b) if self.use_bytes else super()._product(a, b)

    def _sum(self, rows: Tensor) -> Tensor:
        return rows.sum(dim=0, dtype=torch.int32 if self.use_bytes else None)


@cache
def byte_products_pay() -> bool:
    """Whether this CPU's products of int8 matrices are right and faster than those of float32.

    Some that lack the instruction saturate sums of two products at 16 bits."""
    rows = torch.randint(-128, 128, (512, 512), generator=torch.Generator().manual_seed(0))
    rows[:, :64], rows[:, 64:128] = -128, 127
    small, single = rows.to(torch.int8), rows.float()
    try:
        found = torch._int_mm(small.t(), small)
    except (AttributeError, RuntimeError):
        return False
    if not torch.equal(found.double(), rows.double().t() @ rows.double()):
        return False
    # Seconds of the shortest of some calls of each.
    bytewise, single_wise = (
        min(timeit.repeat(product, number=1, repeat=3))
        for product in (lambda: torch._int_mm(small.t(), small), lambda: single.t() @ single)
    )
    return bytewise < single_wise
