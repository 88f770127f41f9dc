# SPDX-License-Identifier: Apache-2.0
"""Transformer blocks that are compiled, or computed again in the backward pass: less time, or less memory."""

import os
import shutil
from collections.abc import Callable
from functools import wraps

import torch
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ldae.engine.hook import LDAEHook
from ldae.models.layers import attend_fastest
from ldae.registry import HOOKS
from ldae.utils import ConfigError, PositiveInt, check_choice, checked
from ldae.utils.models import transformer_blocks

#: Of one block's code, which all blocks share: training and evaluation, encoder and decoder, visible and all tokens, whole
#: and last batches, conditions of one row and of one an image. Beyond it, blocks run as they are.
MOST_VARIANTS = 64


@HOOKS.register_module()
class CompileBlocksHook(LDAEHook):
    """Compile every Transformer block of the model by ``torch.compile``, in place, before the first step.

    Names in checkpoints don't change, and blocks of one shape share one compilation: time steps are tensors, which
    nothing is compiled for anew. mmengine's own ``compile=True`` traces the optimizer as well, which takes minutes.
    Sums are in another order than without, so results are equal to rounding only; drop path and dropout draw other
    numbers. Raises ConfigError if the model has no such blocks, or the machine no compiler.

    Args:
        backend: Of ``torch.compile``.
        mode: Of ``torch.compile``: None, ``'reduce-overhead'``, ``'max-autotune'`` or ``'max-autotune-no-cudagraphs'``.
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
        block.compile(backend=backend, mode=mode, dynamic=False, recompile_limit=MOST_VARIANTS)
    return blocks


def check_cpp_compiler() -> None:
    """Raise :class:`ConfigError` unless there is a C++ compiler, which compiling for a CPU needs."""
    names = [os.environ['CXX']] if os.environ.get('CXX') else ['g++', 'clang++']
    if not any(map(shutil.which, names)):
        raise ConfigError(
            f'CompileBlocksHook needs a C++ compiler, and {" or ".join(names)} is not installed: install one, set CXX, or '
            'remove the hook'
        )


@HOOKS.register_module()
class ActivationCheckpointHook(LDAEHook):
    """Keep only the input of Transformer blocks for the backward pass, which computes the rest a second time.

    A step then needs a fraction of the memory and a third more products. Gradients are the same, and so are names in
    checkpoints. mmengine's own ``activation_checkpointing`` needs the name of every block, and can't be compiled.
    Raises ConfigError for a model without such blocks.

    Args:
        every: Of how many blocks one is computed again: 1 is all of them, 2 every second.
    """

    # Before CompileBlocksHook, which then compiles both passes.
    priority = 'HIGH'

    @checked
    def __init__(self, every: PositiveInt = 1) -> None:
        self.every = every
        self._blocks: list[nn.Module] = []

    def before_train(self, runner: Runner) -> None:
        self.after_train(runner)
        self._blocks = transformer_blocks(runner.model, 'ActivationCheckpointHook')[:: self.every]
        for block in self._blocks:
            draws = any(draws_numbers(part) for part in block.modules())
            block.forward = recomputed(block.forward, draws)
        runner.logger.info(f'{len(self._blocks)} blocks are computed again in the backward pass')

    def after_train(self, runner: Runner) -> None:
        for block in self._blocks:
            vars(block).pop('forward', None)
        self._blocks = []


def recomputed(forward: Callable[..., Tensor], draws: bool) -> Callable[..., Tensor]:
    """The same function, whose inner results are computed again for the gradient; if it ``draws``, from the same numbers."""

    @wraps(forward)  # a function, not a partial object, which can't be compiled
    def call(*args: Tensor) -> Tensor:
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=draws)

    return call


def draws_numbers(module: nn.Module) -> bool:
    """Whether a layer is random in training: dropout or drop path."""
    rates = (getattr(module, name, 0) for name in ('p', 'drop_prob', 'attn_drop'))
    return any(isinstance(rate, float) and rate > 0 for rate in rates)
