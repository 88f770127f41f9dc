# SPDX-License-Identifier: Apache-2.0
"""Log values of all ranks, without waiting for the device in every step."""

import torch
from mmengine import dist
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.runner import Runner

from ldae.registry import HOOKS


@HOOKS.register_module()
class ReducedRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's RuntimeInfoHook, with losses averaged over ranks and read from the device only when a log line is due.

    mmengine reads each value right after its step, which makes the host wait for the device, and logs rank 0's alone.
    Here values stay on the device until the logger's interval is full; then one all-reduce and one copy fetch them.
    """

    def __init__(self) -> None:
        self._pending: list[dict[str, torch.Tensor]] = []
        self._interval = 1

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        intervals = [hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)]
        self._interval = min(intervals, default=1)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        if outputs:
            self._pending.append({key: torch.as_tensor(value).detach() for key, value in outputs.items()})
        # The same on all ranks, and whenever LoggerHook may look.
        is_due = (
            self.every_n_inner_iters(batch_idx, self._interval)
            or self.every_n_train_iters(runner, self._interval)
            or self.end_of_epoch(runner.train_dataloader, batch_idx)
            or self.is_last_train_iter(runner)
        )
        if is_due and self._pending:
            self._flush(runner)

    def before_state_is_saved(self, runner: Runner) -> None:
        """A checkpoint holds the values of all steps before it."""
        if self._pending:
            self._flush(runner)

    def _flush(self, runner: Runner) -> None:
        keys = list(self._pending[0])
        values = torch.stack([step[key].float().reshape(()) for step in self._pending for key in keys])
        self._pending.clear()
        dist.all_reduce(values, op='mean')
        for i, value in enumerate(values.tolist()):
            runner.message_hub.update_scalar(f'train/{keys[i % len(keys)]}', value)
