# SPDX-License-Identifier: Apache-2.0
"""Exact mean and covariance of patches of 8-bit pixels."""

import timeit
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from .streaming_covariance import StreamingCovariance

#: Taken off 8-bit values, which makes them signed: -128 to 127.
SHIFT = 128
#: Rows of which a sum of products is exact in float32 (24 bits), and in int32.
FLOAT_ROWS = 2**24 // SHIFT**2
BYTE_ROWS = 2**31 // SHIFT**2 - 1


class PixelCovariance(StreamingCovariance):
    """Mean and covariance of uint8 rows, from sums of ``x - 128`` and of its products, all of them exact integers.

    The result so depends neither on the order of rows nor on chunks, processes or the machine (up to 2^39 rows). A CPU
    with an instruction for products of bytes uses it; elsewhere float32 products of so few rows are taken that nothing is
    rounded.

    Args:
        row_shape, device: See :class:`StreamingCovariance`.
        chunk_size: Rows per product, at most; it is cut to what is exact.
        use_bytes: Whether to multiply bytes, which needs a CPU; None does where that is faster.
    """

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

    Some that lack the instruction saturate sums of two products at 16 bits.
    """
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
