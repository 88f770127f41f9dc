# SPDX-License-Identifier: Apache-2.0
"""Mixed precision on any device."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import torch
from mmengine.optim import OptimWrapper
from torch import nn
from torch.distributed.fsdp import FSDPModule

from ldae.registry import OPTIM_WRAPPERS
from ldae.utils import Choice, checked


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Run the forward pass under ``torch.autocast`` without a gradient scaler, on whatever device the model is.

    bfloat16 has the exponent range of float32, so that no loss scaling is needed; mmengine's ``AmpOptimWrapper`` scales,
    and refuses to run without a GPU.

    Args:
        dtype: 'bfloat16'; 'float16' is accepted for networks known not to overflow.
        **kwargs: As in ``OptimWrapper``.
    """

    @checked
    def __init__(self, dtype: Annotated[str, Choice('bfloat16', 'float16')] = 'bfloat16', **kwargs) -> None:
        super().__init__(**kwargs)
        self.cast_dtype = getattr(torch, dtype)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast, and no gradient synchronisation while gradients accumulate."""
        device = next(model.parameters()).device.type
        # The cache would keep a copy of each weight that other processes hold to the end of the forward pass.
        cast = torch.autocast(device, self.cast_dtype, cache_enabled=not isinstance(model, FSDPModule))
        with super().optim_context(model), cast:
            yield
