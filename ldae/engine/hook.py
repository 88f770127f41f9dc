# SPDX-License-Identifier: Apache-2.0
"""The base class of ldae's hooks: mmengine's stages and two more, and a flag for what comes after a checkpoint."""

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner

from ldae.utils import ConfigError

#: Errors of data that aren't there.
NO_DATA = (ConfigError, FileNotFoundError)
#: A batch, or what a step returns.
Batch = dict | None


class LDAEHook(Hook):
    """mmengine's ``Hook`` with the stages :meth:`before_state_is_saved` and :meth:`after_failure`, and the flag
    :attr:`after_checkpoint`.

    Both stages are called in the order of the hooks' priorities. Hooks of mmengine and of other packages, which have none of
    this, are passed over."""

    #: Whether what the hook does after a step or an epoch comes after the checkpoint of that moment. A run that is resumed
    #: from the checkpoint then calls ``after_train_iter`` (``data_batch=None``, ``outputs=None``) or ``after_train_epoch`` of
    #: this hook once more, before its next step. The hook's priority has to be below the checkpoint hook's, 'VERY_LOW'.
    after_checkpoint = False

    #: Whether the hook does nothing, since what it needs isn't there.
    left_out = False

    def leave_out(self, runner: Runner, reason: object) -> None:
        """Do nothing in this run, and say why in one line."""
        self.left_out = True
        runner.logger.warning(f'{type(self).__name__} is left out: {reason}')

    def before_state_is_saved(self, runner: Runner) -> None:
        """Called by :class:`ldae.SafeCheckpointHook` in all processes before the Runner puts a checkpoint together: whatever
        the hook keeps to itself and a checkpoint should hold belongs into ``runner.message_hub`` now."""

    def after_failure(self, runner: Runner) -> None:
        """Called by ldae's training loops when an error or Ctrl-C ends the training, in place of ``after_train`` and
        ``after_run``, which mmengine then leaves out; the error is raised on afterwards. Put back what the hook has changed
        outside of the run. Other processes may be elsewhere: don't communicate."""

    def is_due(self, runner: Runner, interval: int, by_epoch: bool = True) -> bool:
        """In ``after_train_epoch`` (by step: ``after_train_iter``): whether it was one of every ``interval``, or the last; never for
        a hook that is left out."""
        if self.left_out:
            return False
        if by_epoch:
            return self.every_n_epochs(runner, interval) or self.is_last_train_epoch(runner)
        return self.every_n_train_iters(runner, interval) or self.is_last_train_iter(runner)


def parts_of(optim_wrapper: OptimWrapper | OptimWrapperDict) -> list[OptimWrapper]:
    """One optimizer wrapper, or those of the parts of a model that have their own."""
    return list(optim_wrapper.values()) if isinstance(optim_wrapper, OptimWrapperDict) else [optim_wrapper]


def is_complete(runner: Runner) -> bool:
    """Whether no gradients are waiting for more of them."""
    return all(part.should_update() for part in parts_of(runner.optim_wrapper))


def call_hooks(runner: Runner, stage: str) -> None:
    """Call a stage of :class:`LDAEHook` in all hooks that have it."""
    for hook in runner.hooks:
        if hasattr(hook, stage):
            getattr(hook, stage)(runner)
