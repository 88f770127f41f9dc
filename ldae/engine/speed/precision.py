# SPDX-License-Identifier: Apache-2.0
"""The precision of the forward pass and of products in float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn
from torch.distributed.fsdp import FSDPModule

from ldae.engine.hook import LDAEHook
from ldae.registry import HOOKS, OPTIM_WRAPPERS
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


@HOOKS.register_module()
class MatmulPrecisionHook(LDAEHook):
    """Set ``torch.set_float32_matmul_precision`` while a run lasts: ``'high'`` is TF32 on a GPU that has it.

    Tokenizers, and the fold of their maps into weights, keep full precision (:func:`ldae.utils.full_precision`)."""

    @checked
    def __init__(self, precision: Annotated[str, Choice('highest', 'high', 'medium')] = 'high') -> None:
        self.precision, self._before = precision, None

    def before_run(self, runner: Runner) -> None:
        self._before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(self.precision)

    def after_run(self, runner: Runner) -> None:
        torch.set_float32_matmul_precision(self._before)
