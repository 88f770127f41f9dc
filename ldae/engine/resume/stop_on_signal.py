# SPDX-License-Identifier: Apache-2.0
"""Stop a run at a signal, after a step and its checkpoint rather than in the middle of either."""

import os
import signal
import threading
import time
from contextlib import suppress
from types import FrameType

import torch
import torch.distributed as torch_dist
from mmengine.dist import get_rank, is_distributed
from mmengine.runner import Runner

from ldae.engine.hook import Batch, LDAEHook
from ldae.registry import HOOKS
from ldae.utils.signals import SIGNALS, STOPPED_STATUS, end_workers

from .safe_checkpoint import SafeCheckpointHook

#: Seconds in which a signal that comes again isn't a second one: launchers, or `timeout`, send to the group as well.
LAUNCHED, ALONE = 1.0, 0.1
NOTICE = '\n{}: stopping after this step, with a checkpoint; once more: at once, without\n'


@HOOKS.register_module()
class StopOnSignalHook(LDAEHook):
    """At SIGTERM or SIGUSR1, as schedulers send them, or at Ctrl-C, save a checkpoint after the next step and stop: with
    exit status 75, after Ctrl-C by a KeyboardInterrupt. A second signal ends the process at once.

    All processes stop after the same step: each step they share the signal through a group of their own on the CPU, and read
    it one step later, when it has long arrived, so nobody waits. While gradients accumulate, the stop waits for the step
    that uses them. Validation isn't waited for where a single process has the checkpoint of the step before it."""

    # After the step's checkpoint, of which it makes sure.
    priority = 95

    def __init__(self) -> None:
        self.caught: int | None = None
        self._before: dict = {}
        self._group = self._sent = None
        self._stopped_by = 0
        self._caught_at = 0.0

    def before_train(self, runner: Runner) -> None:
        self.caught, self._sent, self._stopped_by = None, None, 0
        if is_distributed() and self._group is None:
            self._group = torch_dist.new_group(backend='gloo')
        for number in SIGNALS if threading.current_thread() is threading.main_thread() else ():
            self._before[number] = signal.signal(number, self._catch)

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
            if get_rank() == 0:
                # What prints may be what was interrupted; and there may be no terminal any more.
                with suppress(OSError):
                    os.write(2, NOTICE.format(signal.Signals(number).name).encode())
        elif time.monotonic() - self._caught_at > (ALONE if self._group is None else LAUNCHED):
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            end_workers()
            os._exit(128 + number)

    def after_train_iter(self, runner: Runner, batch_idx: int, **step: Batch) -> None:
        self._stopped_by = self._stopped_by or self._caught_by_any()
        if not self._stopped_by:
            return
        hook = _checkpoint_hook(runner)
        if hook is None or hook.save_step(runner):
            self._leave(runner, hook, runner.iter + 1)

    def after_val_iter(self, runner: Runner, batch_idx: int, **step: Batch) -> None:
        hook = _checkpoint_hook(runner)
        if self.caught and self._group is None and hook is not None and hook.saved_step == runner.iter:
            self._stopped_by = self.caught
            self._leave(runner, hook, runner.iter)

    def _caught_by_any(self) -> int:
        """The signal that any process had caught by the step before, 0 if none."""
        if self._group is None:
            return self.caught or 0
        sent, flag = self._sent, torch.tensor([self.caught or 0], dtype=torch.uint8)
        work = torch_dist.all_reduce(flag, torch_dist.ReduceOp.MAX, self._group, async_op=True)
        self._sent = work, flag
        if sent is None:
            return 0
        sent[0].wait()
        return int(sent[1])

    def _leave(self, runner: Runner, hook: SafeCheckpointHook | None, step: int) -> None:
        saved = hook is not None and hook.saved_step == step
        written, missing = '{} is written: go on with --resume', 'no checkpoint of this step is written'
        what = written.format(hook.last_ckpt) if saved else missing
        if get_rank() == 0:
            runner.logger.warning(f'Stopped by {signal.Signals(self._stopped_by).name} after step {step}; {what}')
        if self._group is not None:
            torch_dist.barrier(self._group)  # launchers end the others when the first has ended
        if self._stopped_by == signal.SIGINT:
            raise KeyboardInterrupt
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise SystemExit(STOPPED_STATUS)


def _checkpoint_hook(runner: Runner) -> SafeCheckpointHook | None:
    return next((hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook)), None)
