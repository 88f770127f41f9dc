# SPDX-License-Identifier: Apache-2.0
"""Compute blocks again in the backward pass: less memory for more time."""

from collections.abc import Callable
from functools import wraps

from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ldae.engine.hook import LDAEHook
from ldae.registry import HOOKS
from ldae.utils import PositiveInt, checked
from ldae.utils.models import transformer_blocks


@HOOKS.register_module()
class ActivationCheckpointHook(LDAEHook):
    """Keep only the input of Transformer blocks for the backward pass, which computes the rest a second time.

    A step then needs a fraction of the memory and a third more products. Gradients are the same, and so are names in
    checkpoints. mmengine's own ``activation_checkpointing`` needs the name of every block, and can't be compiled.

    Args:
        every: Of how many blocks one is computed again: 1 is all of them, 2 every second.

    Raises:
        ConfigError: For a model without such blocks.
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
