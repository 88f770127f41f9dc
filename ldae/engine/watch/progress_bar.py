# SPDX-License-Identifier: Apache-2.0
"""A progress bar of the whole training run."""

from contextlib import ExitStack

from mmengine.dist import is_main_process
from mmengine.runner import Runner
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ldae.engine.hook import Batch, LDAEHook
from ldae.registry import HOOKS
from ldae.utils import PositiveInt, checked


@HOOKS.register_module()
class ProgressBarHook(LDAEHook):
    """Show steps, time left and the loss on a terminal; silent where the output is not one.

    Log lines are printed above the bar. The loss is read at intervals only, from what is logged anyway, so that no step
    waits for the device on the bar's account.

    Args:
        interval: Steps between updates of the loss.
        desc: Text in front of the bar.
    """

    priority = 'VERY_LOW'

    @checked
    def __init__(self, interval: PositiveInt = 50, desc: str = 'training') -> None:
        self.interval, self.desc = interval, desc
        self.bar: tqdm | None = None
        self._open = ExitStack()

    def before_train(self, runner: Runner) -> None:
        self._open.close()
        # None: tqdm looks whether stderr is a terminal.
        options = dict(desc=self.desc, unit='step', disable=None if is_main_process() else True)
        self.bar = tqdm(total=runner.max_iters, initial=runner.iter, dynamic_ncols=True, **options)
        self._open.callback(self.bar.close)
        if not self.bar.disable:
            self._open.enter_context(logging_redirect_tqdm([runner.logger]))

    def after_train_iter(self, runner: Runner, batch_idx: int, **step: Batch) -> None:
        if not self.bar.disable and self.every_n_train_iters(runner, self.interval):
            self._show_loss(runner)
        self.bar.update()

    def _show_loss(self, runner: Runner) -> None:
        # Losses reach the message hub when a log line is due, so at first there may be none.
        if 'train/loss' in runner.message_hub.log_scalars:
            loss = runner.message_hub.get_scalar('train/loss').mean(self.interval)
            self.bar.set_postfix(loss=f'{loss:.4f}', refresh=False)

    def after_train(self, runner: Runner) -> None:
        self._open.close()
