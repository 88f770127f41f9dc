# SPDX-License-Identifier: Apache-2.0
"""Stop a run at a signal, after a step and its checkpoint rather than in the middle of either."""

import os
import signal
import time
from types import FrameType

import torch
import torch.distributed as torch_dist
from mmengine.dist import get_rank, is_distributed
from mmengine.runner import Runner

from ldae.engine.hook import Batch, LDAEHook
from ldae.registry import HOOKS
from ldae.utils.signals import SIGNALS, STOPPED_STATUS

from .safe_checkpoint import SafeCheckpointHook

#: Launchers pass on what their processes have got as well: that isn't a second signal yet.
SECONDS_OF_ONE_SIGNAL = 1.0


@HOOKS.register_module()
class StopOnSignalHook(LDAEHook):
    """At SIGTERM or SIGUSR1, as schedulers send them, save a checkpoint after the next step and exit with status 75; a
    second signal ends the process at once.

    All processes stop after the same step: each step they share a flag through a group of their own on the CPU, and read
    it one step later, when it has long arrived, so nobody waits. While gradients accumulate, the stop waits for the step
    that uses them; during validation, for the step after it.
    """

    # After the step's checkpoint, of which it makes sure.
    priority = 95

    def __init__(self) -> None:
        self.caught: int | None = None
        self._before: dict = {}
        self._group = self._sent = None
        self._stopping = False
        self._caught_at = 0.0

    def before_train(self, runner: Runner) -> None:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._catch)
        self.caught, self._sent, self._stopping = None, None, False
        if is_distributed() and self._group is None:
            self._group = torch_dist.new_group(backend='gloo')

    def after_train(self, runner: Runner) -> None:
        self.after_failure(runner)

    def after_failure(self, runner: Runner) -> None:
        """Let signals mean what they meant before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _catch(self, number: int, frame: FrameType | None) -> None:
        if self.caught is None:
            self.caught, self._caught_at = number, time.monotonic()
        elif time.monotonic() - self._caught_at > SECONDS_OF_ONE_SIGNAL:
            os._exit(128 + number)

    def after_train_iter(self, runner: Runner, batch_idx: int, **step: Batch) -> None:
        self._stopping = self._stopping or self._all_caught()
        if not self._stopping:
            return
        hooks = [hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook)]
        if hooks and not hooks[0].save_step(runner):
            return
        self._leave(runner, hooks[0] if hooks else None)

    def _all_caught(self) -> bool:
        """Whether any process had caught a signal by the step before."""
        if self._group is None:
            return self.caught is not None
        sent, flag = self._sent, torch.tensor([self.caught is not None], dtype=torch.uint8)
        work = torch_dist.all_reduce(flag, torch_dist.ReduceOp.MAX, self._group, async_op=True)
        self._sent = work, flag
        if sent is None:
            return False
        sent[0].wait()
        return bool(sent[1])

    def _leave(self, runner: Runner, hook: SafeCheckpointHook | None) -> None:
        saved = hook is not None and hook.saved_step == runner.iter + 1
        written, missing = '{} is written: go on with --resume', 'no checkpoint of this step is written'
        what = written.format(hook.last_ckpt) if saved else missing
        name = signal.Signals(self.caught).name if self.caught is not None else 'a signal to another process'
        if get_rank() == 0:
            runner.logger.warning(f'Stopped by {name} after step {runner.iter + 1}; {what}')
        if self._group is not None:
            torch_dist.barrier(self._group)  # launchers end the others when the first has ended
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise SystemExit(STOPPED_STATUS)
