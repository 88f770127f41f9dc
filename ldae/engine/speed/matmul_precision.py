# SPDX-License-Identifier: Apache-2.0
"""Choose the precision that float32 products are computed in."""

from typing import Annotated

import torch
from mmengine.runner import Runner

from ldae.engine.hook import LDAEHook
from ldae.registry import HOOKS
from ldae.utils import Choice, checked


@HOOKS.register_module()
class MatmulPrecisionHook(LDAEHook):
    """Set ``torch.set_float32_matmul_precision`` while a run lasts: ``'high'`` is TF32 on a GPU that has it.

    Tokenizers, and the fold of their maps into weights, keep full precision (:func:`ldae.utils.full_precision`).
    """

    @checked
    def __init__(self, precision: Annotated[str, Choice('highest', 'high', 'medium')] = 'high') -> None:
        self.precision, self._before = precision, None

    def before_run(self, runner: Runner) -> None:
        self._before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(self.precision)

    def after_run(self, runner: Runner) -> None:
        torch.set_float32_matmul_precision(self._before)
