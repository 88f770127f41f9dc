# SPDX-License-Identifier: Apache-2.0
"""Log values of all ranks, and note them when a log line is due rather than in every step."""

import time
from collections.abc import Sequence

import numpy as np
import torch
from mmengine import dist
from mmengine.hooks import IterTimerHook, LoggerHook, RuntimeInfoHook
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import Runner

from ldae.engine.hook import Batch, LDAEHook
from ldae.registry import HOOKS


class DeferredLogging(LDAEHook):
    """Keep values of steps, and note them in the message hub when a log line is due or a checkpoint is written."""

    _intervals: set[int] = {1}
    _early: set[int] = set()

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        self._early = {runner.iter + step for hook in runner.hooks for step in getattr(hook, 'early_steps', ())}
        self._intervals = {hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)} or {1}

    def _flush_if_due(self, runner: Runner, batch_idx: int) -> None:
        # The same on all ranks, and whenever LoggerHook may look.
        ends = self.end_of_epoch(runner.train_dataloader, batch_idx)
        inner = any(self.every_n_inner_iters(batch_idx, n) for n in self._intervals)
        early = runner.iter + 1 in self._early
        if ends or inner or early or any(self.is_due(runner, n, by_epoch=False) for n in self._intervals):
            self.flush(runner)

    def before_state_is_saved(self, runner: Runner) -> None:
        self.flush(runner)

    def flush(self, runner: Runner) -> None:
        """Note what is kept, if anything."""
        raise NotImplementedError


@HOOKS.register_module()
class ReducedRuntimeInfoHook(DeferredLogging, RuntimeInfoHook):
    """mmengine's RuntimeInfoHook, with losses averaged over ranks and read from the device only when a log line is due.

    mmengine reads each value right after its step, which makes the host wait for the device, and logs rank 0's alone.
    While losses are averaged, all ranks must write checkpoints in the same steps."""

    def __init__(self) -> None:
        self._rates: list[dict[str, float]] = []
        self._losses: list[dict[str, torch.Tensor]] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, **step: Batch) -> None:
        runner.message_hub.update_info('iter', runner.iter)
        self._rates.append({name: float(lr[0]) for name, lr in runner.optim_wrapper.get_lr().items()})

    def after_train_iter(self, runner: Runner, batch_idx: int, outputs: Batch = None, **_: Batch) -> None:
        if outputs:
            self._losses.append({key: torch.as_tensor(value).detach() for key, value in outputs.items()})
        self._flush_if_due(runner, batch_idx)

    def flush(self, runner: Runner) -> None:
        """Note learning rates, and losses after reading the device once."""
        rates, losses, self._rates, self._losses = self._rates, self._losses, [], []
        for name in rates[0] if rates else ():
            extend_scalar(runner.message_hub, f'train/{name}', [step[name] for step in rates])
        if not losses:
            return
        values = torch.stack([step[name].float().reshape(()) for step in losses for name in losses[0]])
        dist.all_reduce(values, op='mean')
        for name, column in zip(losses[0], values.view(len(losses), -1).T.tolist(), strict=True):
            extend_scalar(runner.message_hub, f'train/{name}', column)


@HOOKS.register_module(name=['DeferredIterTimerHook', 'LateIterTimerHook'])
class DeferredIterTimerHook(DeferredLogging, IterTimerHook):
    """mmengine's IterTimerHook, which notes the times of training steps when a log line is due."""

    def __init__(self) -> None:
        super().__init__()
        self._times: list[tuple[float, float]] = []
        self._ready = 0.0

    def before_train_iter(self, runner: Runner, batch_idx: int, **step: Batch) -> None:
        self._ready = time.time()

    def after_train_iter(self, runner: Runner, batch_idx: int, **step: Batch) -> None:
        now = time.time()
        self._times.append((self._ready - self.t, now - self.t))
        self.t = now
        self._flush_if_due(runner, batch_idx)

    def flush(self, runner: Runner) -> None:
        """Note the times, and what is left of the run."""
        if not self._times:
            return
        data_times, times = zip(*self._times, strict=True)
        self._times.clear()
        extend_scalar(runner.message_hub, 'train/data_time', data_times)
        extend_scalar(runner.message_hub, 'train/time', times)
        self.time_sec_tot += sum(times)
        mean = self.time_sec_tot / (runner.iter - self.start_iter + 1)
        runner.message_hub.update_info('eta', mean * (runner.max_iters - runner.iter - 1))


def extend_scalar(hub: MessageHub, key: str, values: Sequence[float]) -> None:
    """``hub.update_scalar`` for each value, but copying the history, which may be long, once."""
    hub.update_scalar(key, values[0])
    buffer = hub.log_scalars[key]
    log, counts = buffer.data
    log = np.append(log, values[1:])[-buffer.max_length :]
    counts = np.append(counts, np.ones_like(counts, shape=len(values) - 1))[-buffer.max_length :]
    hub.log_scalars[key] = HistoryBuffer(log, counts, buffer.max_length)
