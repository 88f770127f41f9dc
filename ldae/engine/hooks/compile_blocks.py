# SPDX-License-Identifier: Apache-2.0
"""Compiled Transformer blocks."""

import os
import shutil

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer

from ldae.registry import HOOKS
from ldae.utils import ConfigError
from ldae.utils.models import unwrapped


@HOOKS.register_module()
class CompileBlocksHook(Hook):
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
        known = torch.compiler.list_backends(exclude_tags=())
        if backend not in known:
            raise ConfigError(f'CompileBlocksHook.backend={backend!r} is unknown: choose one of {known}')
        self.backend, self.mode = backend, mode

    def before_train(self, runner: Runner) -> None:
        blocks = [
            part for part in unwrapped(runner.model).modules() if isinstance(part, TransformerEncoderLayer)
        ]
        if not blocks:
            raise ConfigError(
                f'CompileBlocksHook: {type(unwrapped(runner.model)).__name__} has no Transformer blocks: remove the hook'
            )
        if self.backend == 'inductor' and next(blocks[0].parameters()).device.type == 'cpu':
            check_cpp_compiler()
        for block in blocks:
            block.compile(backend=self.backend, mode=self.mode, fullgraph=True, dynamic=False)
        runner.logger.info(f'{len(blocks)} blocks will be compiled in the first step')


def check_cpp_compiler() -> None:
    """Raise :class:`ConfigError` unless there is a C++ compiler, which compiling for a CPU needs."""
    names = [os.environ['CXX']] if os.environ.get('CXX') else ['g++', 'clang++']
    if not any(map(shutil.which, names)):
        raise ConfigError(
            f'CompileBlocksHook needs a C++ compiler, and {" or ".join(names)} is not installed: install one, set CXX, or '
            'remove the hook'
        )
