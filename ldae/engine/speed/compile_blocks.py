# SPDX-License-Identifier: Apache-2.0
"""Compile Transformer blocks."""

import os
import shutil

import torch
from mmengine.runner import Runner
from torch import nn

from ldae.engine.hook import LDAEHook
from ldae.models.layers import attend_fastest
from ldae.registry import HOOKS
from ldae.utils import ConfigError, check_choice
from ldae.utils.models import transformer_blocks


@HOOKS.register_module()
class CompileBlocksHook(LDAEHook):
    """Compile every Transformer block of the model by ``torch.compile``, in place, before the first step.

    Names in checkpoints don't change, and blocks of one shape share one compilation: time steps are tensors, which
    nothing is compiled for anew. mmengine's own ``compile=True`` traces the optimizer as well, which takes minutes. Sums
    are in another order than without, so results are equal to rounding only; drop path and dropout draw other numbers.

    Args:
        backend: Of ``torch.compile``.
        mode: Of ``torch.compile``: None, ``'reduce-overhead'``, ``'max-autotune'`` or ``'max-autotune-no-cudagraphs'``.

    Raises:
        ConfigError: The model has no such blocks, or the machine no compiler.
    """

    def __init__(self, backend: str = 'inductor', mode: str | None = None) -> None:
        check_choice('CompileBlocksHook.backend', backend, torch.compiler.list_backends(exclude_tags=()))
        self.backend, self.mode = backend, mode

    def before_train(self, runner: Runner) -> None:
        blocks = compile_blocks(runner.model, self.backend, self.mode)
        runner.logger.info(f'{len(blocks)} blocks will be compiled in the first step')


def compile_blocks(model: nn.Module, backend: str = 'inductor', mode: str | None = None) -> list[nn.Module]:
    """Compile a model's Transformer blocks in place, when they are first called; return them."""
    blocks = transformer_blocks(model, 'CompileBlocksHook')
    if backend == 'inductor' and next(blocks[0].parameters()).device.type == 'cpu':
        check_cpp_compiler()
    for block in blocks:
        attend_fastest(block.attn)
        block.compile(backend=backend, mode=mode, fullgraph=True, dynamic=False)
    return blocks


def check_cpp_compiler() -> None:
    """Raise :class:`ConfigError` unless there is a C++ compiler, which compiling for a CPU needs."""
    names = [os.environ['CXX']] if os.environ.get('CXX') else ['g++', 'clang++']
    if not any(map(shutil.which, names)):
        raise ConfigError(
            f'CompileBlocksHook needs a C++ compiler, and {" or ".join(names)} is not installed: install one, set CXX, or '
            'remove the hook'
        )
