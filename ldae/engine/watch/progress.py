# SPDX-License-Identifier: Apache-2.0
"""Log what will run before it runs, show how far it is, and choose the lines that the console shows."""

import logging
import time
from contextlib import ExitStack
from datetime import timedelta

import torch
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.hooks import Hook, LoggerHook
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.runner import Runner
from torch import nn
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ldae.engine.hook import Batch, LDAEHook
from ldae.registry import HOOKS
from ldae.utils import ConfigError, PositiveInt, checked
from ldae.utils.errors import short
from ldae.utils.models import unwrapped

#: How messages begin that come with each step or epoch, in whose place a progress bar stands.
STEPS = ('Epoch(train)', 'Iter(train)', 'Saving checkpoint at')
SECONDS_BETWEEN_LOSSES = 1.0
#: Seconds from which on a run is long, by device: without a GPU one is tried out, with one it is meant.
LONG = dict(cpu=3600, mps=3600, cuda=7 * 86400)
#: Share of the time, and minutes of a run, from which on waiting for images is worth a word.
MUCH_WAITING, MINUTES_WORTH_ADVICE = 0.1, 10


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
    model, loop, loader = unwrapped(runner.model), runner.train_loop, runner.train_dataloader
    epochs = f'{loop.max_epochs} epochs x ' if loop.max_epochs and loop.max_epochs > 1 else ''
    steps = len(loader) if epochs else loop.max_iters
    sizes = [(p.numel() / 1e6, p.requires_grad) for p in model.parameters()]
    trained, frozen = (sum(size for size, learns in sizes if learns is flag) for flag in (True, False))
    parameters = f'{trained:.2f} M parameters' + (f' and {frozen:.2f} M frozen' if frozen >= 0.005 else '')
    device = get_device()
    where = torch.cuda.get_device_name() if device == 'cuda' else f'{device} ({torch.get_num_threads()} threads)'
    return (
        f'{type(model).__name__}: {parameters}; {len(loader.dataset):,} images; {epochs}{steps:,} steps; '
        f'{runner.world_size} x {where}; {runner.work_dir}'
    )


@HOOKS.register_module()
class ProgressBarHook(LDAEHook):
    """Show on a terminal steps, time left, loss, lr and images a second, from the first step on, in the place of the log's lines
    of training steps; silent where the output is not a terminal.

    Other lines of the log are printed above the bar. The loss is this process's, read from the device every ``interval`` steps
    or once a second has passed, so that steps seldom wait on the bar's account.

    Args:
        interval: Steps between updates of the loss, at most.
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
        self._shown = runner.iter, time.perf_counter()
        if not self.bar.disable:
            self._write_lines_above(runner)

    def _write_lines_above(self, runner: Runner) -> None:
        level = min((handler.level for handler in console_handlers(runner.logger)), default=logging.INFO)
        self._open.enter_context(logging_redirect_tqdm([runner.logger]))
        for handler in console_handlers(runner.logger):
            handler.setLevel(level)
            if handler.stream.isatty():
                handler.addFilter(lambda record: not record.getMessage().startswith(STEPS))

    def after_train_iter(self, runner: Runner, batch_idx: int, outputs: Batch = None, **step: Batch) -> None:
        if not self.bar.disable:
            done, seconds = runner.iter + 1 - self._shown[0], time.perf_counter() - self._shown[1]
            if done >= self.interval or seconds > SECONDS_BETWEEN_LOSSES or self.bar.n < self.bar.initial + 10:
                values = dict(loss=outputs['loss'].detach()) if outputs and 'loss' in outputs else {}
                values['lr'] = next(iter(runner.optim_wrapper.get_lr().values()))[0]
                values['images/s'] = done * images_of_a_step(runner) / seconds
                self.bar.set_postfix({name: f'{float(value):.4g}' for name, value in values.items()}, refresh=False)
                self._shown = runner.iter + 1, time.perf_counter()
        self.bar.update()

    def after_train(self, runner: Runner) -> None:
        self._open.close()


def images_of_a_step(runner: Runner) -> int:
    """Of all processes together."""
    loader = runner.train_dataloader
    return runner.world_size * (loader.batch_size or getattr(loader.batch_sampler, 'batch_size', 1))


@HOOKS.register_module()
class FirstStepsHook(LDAEHook):
    """Log the first steps, whatever the interval of the log, and after ten how long the run will take; a long one gets advice."""

    priority = 'VERY_LOW'
    #: Of this process: what :class:`DeferredLogging` keeps is noted in these steps too.
    early_steps = (1, 2, 5, 10)

    def before_train(self, runner: Runner) -> None:
        self._begin, self._waited, self._ended = runner.iter, 0.0, time.perf_counter()

    def before_train_iter(self, runner: Runner, batch_idx: int, **step: Batch) -> None:
        self._waited += time.perf_counter() - self._ended

    def after_train_iter(self, runner: Runner, batch_idx: int, **step: Batch) -> None:
        self._ended = time.perf_counter()
        done = runner.iter + 1 - self._begin
        if done not in self.early_steps:
            return
        if not any(_logs_step(hook, runner, batch_idx) for hook in runner.hooks):
            runner.logger.info(runner.log_processor.get_log_after_iter(runner, batch_idx, 'train')[1])
        if done == 2:  # from here on: workers have started, blocks are compiled
            self._second, self._waited = self._ended, 0.0
        left = runner.max_iters - runner.iter - 1
        if done == 10 and left:
            seconds = self._ended - self._second
            pace = left, seconds / 8, images_of_a_step(runner), self._waited / seconds, runner._val_loop
            for line in describe_pace(*pace):
                runner.logger.info(line)


def _logs_step(hook: Hook, runner: Runner, batch_idx: int) -> bool:
    if not isinstance(hook, LoggerHook):
        return False
    ends = hook.end_of_epoch(runner.train_dataloader, batch_idx)
    all_of_it = len(runner.train_dataloader) <= hook.interval
    return hook.every_n_inner_iters(batch_idx, hook.interval) or (ends and (all_of_it or not hook.ignore_last))


def describe_pace(steps: int, seconds: float, images: int, waited: float, validates: object = None) -> list[str]:
    """How long so many steps of ``seconds`` and ``images`` will take, ``waited`` being the share of the time in
    which a step waited for them, and advice if that is long."""
    total = steps * seconds
    lines = [
        f'{timedelta(seconds=round(total))} for the {steps:,} steps that are left{", and validation" if validates else ""}: '
        f'{seconds:.3g} s a step, {images / seconds:,.3g} images/s, {waited:.0%} of the time waiting for images'
    ]
    if total > LONG.get(get_device(), LONG['cpu']):
        lines.append(
            'To make it shorter: --scale auto --budget 30m fits images, network and epochs to a time; or fewer --epochs, a '
            'smaller --img-size or --model; --fast'
        )
    if waited > MUCH_WAITING and total > MINUTES_WORTH_ADVICE * 60:
        lines.append(
            'To wait less for images: more train_dataloader.num_workers where there are cores, --fast, or ldae pack-dataset'
        )
    return lines


#: How messages of mmengine begin that say nothing of this run, or, in hundreds of lines, what the log file keeps.
ROUTINE = (
    f'\n{"-" * 60}\nSystem environment:', 'Config:\n', 'Hooks will be executed', 'Distributed training is not used',
    'Exp name:', 'Checkpoints will be saved to', '"FileClient" will be deprecated', '"HardDiskBackend" is the alias',
)  # fmt: skip


class BriefRunner(Runner):
    """mmengine's Runner, whose ``log_level`` is the console's: 'DEBUG' shows what the log file has, 'INFO' leaves
    :data:`ROUTINE` out. The file has at least what 'INFO' lets through."""

    def build_logger(self, log_level: int | str = 'INFO', log_file: str | None = None, **kwargs) -> MMLogger:
        level = logging._checkLevel(log_level)
        logger = super().build_logger(min(level, logging.INFO), log_file, **kwargs)
        for handler in console_handlers(logger):
            handler.setLevel(max(handler.level, level))
            if level > logging.DEBUG:
                handler.addFilter(lambda record: not record.getMessage().startswith(ROUTINE))
        return logger

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """As mmengine's; without a GPU, where torch has no SyncBatchNorm, each process normalises by its own images."""
        if self.distributed and get_device() != 'cuda':
            model = revert_sync_batchnorm(model)
        return super().wrap_model(model_wrapper_cfg, model)

    def resume(self, filename: str, *args, **kwargs) -> None:
        try:
            super().resume(filename, *args, **kwargs)
        except (LookupError, TypeError, ValueError, AttributeError, AssertionError, ArithmeticError) as error:
            if isinstance(error, ConfigError):
                raise
            why = short(error, 200)
            raise ConfigError(
                f'{filename} cannot be resumed from ({why}): use the one before it, or begin anew with its weights, '
                f'--cfg-options load_from={filename}'
            ) from error


def console_handlers(logger: logging.Logger) -> list[logging.Handler]:
    """Those that write to standard output or error."""
    return [handler for handler in logger.handlers if not isinstance(handler, logging.FileHandler)]
