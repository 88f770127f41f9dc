# SPDX-License-Identifier: Apache-2.0
"""Log what will run before it runs, and show how far it is."""

from contextlib import ExitStack

import torch
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.runner import Runner
from torch import nn
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ldae.engine.hook import Batch, LDAEHook
from ldae.registry import HOOKS
from ldae.utils import PositiveInt, checked
from ldae.utils.models import unwrapped


@HOOKS.register_module()
class RunSummaryHook(LDAEHook):
    """Before training, log the model, its parameters, the data, the steps and the device in one line."""

    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Called before tests too, which say themselves what they do."""
        if runner._train_loop is not None and not isinstance(runner._train_loop, dict):
            runner.logger.info(describe_training(runner))


def describe_training(runner: Runner) -> str:
    """One line: what will be trained on what, for how long, where."""
    model = unwrapped(runner.model)
    loop, loader = runner.train_loop, runner.train_dataloader
    epochs = f'{loop.max_epochs} epochs x ' if loop.max_epochs and loop.max_epochs > 1 else ''
    steps = len(loader) if epochs else loop.max_iters
    return (
        f'{type(model).__name__}: {describe_parameters(model)}; {len(loader.dataset):,} images; '
        f'{epochs}{steps:,} steps; {runner.world_size} x {describe_device()}; {runner.work_dir}'
    )


def describe_parameters(model: nn.Module) -> str:
    """'85.80 M parameters and 0.10 M frozen'."""
    sizes = [(p.numel() / 1e6, p.requires_grad) for p in model.parameters()]
    trained, frozen = (sum(size for size, learns in sizes if learns is flag) for flag in (True, False))
    return f'{trained:.2f} M parameters' + (f' and {frozen:.2f} M frozen' if frozen >= 0.005 else '')


def describe_device() -> str:
    """'NVIDIA H100' or 'cpu (2 threads)'."""
    if (device := get_device()) == 'cuda':
        return torch.cuda.get_device_name()
    return f'{device} ({torch.get_num_threads()} threads)'


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
