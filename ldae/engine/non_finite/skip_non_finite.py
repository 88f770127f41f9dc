# SPDX-License-Identifier: Apache-2.0
"""Skip steps whose loss or gradient isn't finite, count them, and save what is needed to find out why."""

from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import EMAHook
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import get_total_norm
from torch.optim import SGD, Optimizer

from ldae.engine.hook import Batch, LDAEHook, is_complete, parts_of
from ldae.engine.speed.sharding import full_state_dicts
from ldae.registry import HOOKS
from ldae.utils import ConfigError, NaturalInt, PositiveInt, TrainingStopped, checked
from ldae.utils.models import unwrapped

from .step_snapshots import StepSnapshot, recent_losses, save_snapshots, save_state

FOLDER = 'non_finite'
ONE = torch.ones(())


@HOOKS.register_module()
class SkipNonFiniteHook(LDAEHook):
    """Skip optimizer steps whose gradient, or a loss behind it, isn't finite; stop the run after several in a row.

    A skipped step leaves weights, optimizer and running statistics as they were; the learning rate and the order of the
    data go on by steps, as if it had counted. All ranks skip together: a loss that isn't finite turns its gradient into
    NaN, and gradients are shared. A step that is skipped is logged and counted, and its batch, time steps and random
    state are saved beside the weights in ``<work dir>/non_finite/iter_<step>``, for ``tools/reproduce.py``.

    A fused optimizer on a GPU masks the step on the device, and the flag is read one step later, when it has long been
    there; other optimizers wait for the device at each step. A healthy run is the same, bit for bit, with and without
    this hook. ``AmpOptimWrapper`` skips steps itself, and is left alone. Raises TrainingStopped after ``max_in_a_row``
    skipped steps in a row.

    Args:
        max_in_a_row: Skipped steps in a row that stop the run, with exit status 3; None never stops it.
        max_saved: How many skipped steps are saved, the last one before the run stops besides.
    """

    # The last to see what a step draws from, so after all hooks that may seed.
    priority = 'LOWEST'

    @checked
    def __init__(self, max_in_a_row: PositiveInt | None = 3, max_saved: NaturalInt = 3) -> None:
        self.max_in_a_row, self.max_saved = max_in_a_row, max_saved
        self.skipped = self.saved = 0
        self.last_skipped = -1
        self._guards: list[OptimizerGuard] = []
        self._snapshots: list[StepSnapshot] = []
        self._handles: list = []
        self._running: RunningStatistics | None = None

    def before_train(self, runner: Runner) -> None:
        self._remove()
        self.skipped = runner.message_hub.runtime_info.get('skipped_steps', 0)
        model = unwrapped(runner.model)
        self._running = RunningStatistics(model)
        self._handles = [model.register_forward_hook(self._on_forward, with_kwargs=True)]
        for part in parts_of(runner.optim_wrapper):
            if not isinstance(part, AmpOptimWrapper):
                guard = OptimizerGuard(part.optimizer, self, runner)
                self._guards.append(guard)
                self._handles.append(part.optimizer.register_step_pre_hook(guard.before_step))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Batch = None) -> None:
        if not self._snapshots:
            self._running.remember()
        self._snapshots.append(StepSnapshot(runner.iter, data_batch))

    def _on_forward(self, model: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
        if kwargs.get('mode') != 'loss' or not isinstance(output, dict):
            return None
        if self._snapshots:
            self._snapshots[-1].seen = recent_losses(model)
        return {key: nan_unless_finite(value) if 'loss' in key else value for key, value in output.items()}

    def after_train_iter(self, runner: Runner, batch_idx: int, **step: Batch) -> None:
        if not self._guards or any(guard.stepped for guard in self._guards):
            self._snapshots = []
            for guard in self._guards:
                guard.stepped = False

    def is_skipped(self, runner: Runner) -> bool:
        """Whether this step was skipped; waits for the device."""
        self._resolve()
        return self.last_skipped == runner.iter

    def before_state_is_saved(self, runner: Runner) -> None:
        """Bring the count up to the step of the checkpoint."""
        self._resolve()

    def after_train_epoch(self, runner: Runner) -> None:
        self._resolve()

    def after_train(self, runner: Runner) -> None:
        self._resolve()
        self._remove()

    def _resolve(self) -> None:
        for guard in self._guards:
            guard.resolve()

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        for guard in self._guards:
            guard.release()
        self._handles, self._guards, self._snapshots = [], [], []

    def report(self, runner: Runner, snapshots: list[StepSnapshot], in_a_row: int) -> None:
        """Count a skipped step, save what led to it, and stop the run if there are too many in a row."""
        step = snapshots[-1].iter
        # Of two optimizers the second may skip the same step.
        is_new, self.last_skipped = step != self.last_skipped, step
        stop = self.max_in_a_row is not None and in_a_row >= self.max_in_a_row
        where = self._save(runner, snapshots) if stop or (is_new and self.saved < self.max_saved) else ''
        if is_new:
            self.skipped += 1
            runner.message_hub.update_info('skipped_steps', self.skipped)
            runner.visualizer.add_scalars(dict(skipped_steps=self.skipped), step=step + 1)
            runner.logger.warning(
                f'Iter [{step + 1}/{runner.max_iters}]  loss or gradient is not finite: step skipped '
                f'({in_a_row} in a row, {self.skipped} in all){where}'
            )
        if stop:
            raise TrainingStopped(
                f'loss or gradient was not finite in {in_a_row} steps in a row, the last being step {step + 1}: stopped; '
                f'the weights and checkpoints are those from before{where}'
            )

    def _save(self, runner: Runner, snapshots: list[StepSnapshot]) -> str:
        self.saved += 1
        folder = Path(runner.work_dir) / FOLDER / f'iter_{snapshots[-1].iter + 1}'
        try:
            with full_state_dicts(runner, moments=False):
                if is_main_process():
                    save_state(folder, runner)
            save_snapshots(folder, snapshots, runner.seed)
        except OSError as error:
            runner.logger.error(f'{folder} could not be written: {error}')
            return ''
        modules = ((runner.cfg or {}).get('custom_imports') or {}).get('imports') or []
        own = ''.join(f' --import {module}' for module in ([modules] if isinstance(modules, str) else modules))
        return f'; to see why: tools/reproduce.py {folder}{own}'


class OptimizerGuard:
    """Lets one optimizer step only on finite gradients."""

    def __init__(self, optimizer: Optimizer, hook: SkipNonFiniteHook, runner: Runner) -> None:
        self.optimizer, self.hook, self.runner = optimizer, hook, runner
        # On a CPU the flag is there at once, and a mask would cost a pass over the state. Of torch 2.14's fused optimizers,
        # SGD leaves its momentum uninitialised where it masks the first step.
        on_cpu = optimizer.param_groups[0]['params'][0].device.type == 'cpu'
        supported = getattr(optimizer, '_step_supports_amp_scaling', False)
        self.masks = supported and not on_cpu and not isinstance(optimizer, SGD)
        self.in_a_row = 0
        self.stepped = False
        self._pending: tuple[Tensor, torch.cuda.Event | None, list[StepSnapshot]] | None = None

    def before_step(self, *_) -> None:
        """Called by the optimizer when gradients are complete."""
        self.resolve()  # the step before: weights are still those that it was skipped with
        bad = is_not_finite(self.optimizer)
        self.stepped = True
        self._pending = *to_host(bad), self.hook._snapshots
        if self.masks:
            self.optimizer.found_inf, self.optimizer.grad_scale = bad.float(), None
            self.hook._running.restore_where(bad)
        elif bad:
            self.optimizer.zero_grad(set_to_none=True)  # what has no gradient is left alone by any optimizer
            self.hook._running.restore_where(bad)
            self.resolve()

    def release(self) -> None:
        """Leave the optimizer as it was found."""
        if self.masks:
            for name in {'found_inf', 'grad_scale'} & vars(self.optimizer).keys():
                delattr(self.optimizer, name)

    def resolve(self) -> None:
        """Learn what became of the last step."""
        if self._pending is None:
            return
        bad, copied, snapshots = self._pending
        self._pending = None
        if copied is not None:
            copied.synchronize()
        self.in_a_row = self.in_a_row + 1 if bad else 0
        if self.in_a_row:
            self.hook.report(self.runner, snapshots, self.in_a_row)


class RunningStatistics:
    """Running mean and variance of BatchNorms, and what else a model names by ``running_buffers()``, which the forward pass of a skipped
    step has changed already."""

    def __init__(self, model: nn.Module) -> None:
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        self._places = [(norm, name) for norm in norms for name, _ in norm.named_buffers(recurse=False)]
        for module in model.modules():
            self._places += getattr(module, 'running_buffers', list)()
        self._before: list[Tensor] = []

    @property
    def buffers(self) -> list[Tensor]:
        """As they are now: a module may put another tensor in the place of one."""
        return [getattr(module, name) for module, name in self._places]

    def remember(self) -> None:
        self._before = [buffer.clone() for buffer in self.buffers]

    def restore_where(self, bad: Tensor) -> None:
        """Put back what was remembered if ``bad``, without asking the device whether it is."""
        for buffer, before in zip(self.buffers, self._before, strict=False):
            buffer.copy_(torch.where(bad, before, buffer))


@HOOKS.register_module()
class SkipAwareEMAHook(LDAEHook, EMAHook):
    """mmengine's EMAHook by updates of the weights: the average is left alone while gradients accumulate, and where
    :class:`SkipNonFiniteHook` has skipped a step. It has to know at each update, so it waits for the device then.

    Args:
        in_place: Checkpoints have the average in the place of the weights, as mmengine writes them: whatever reads them
            gets the average. False leaves the weights there, and the average beside them, for ``--ema``.
        **options: mmengine's.
    """

    def __init__(self, in_place: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.in_place = in_place

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        updates, reach = runner.max_iters, 1 / getattr(self.ema_model, 'momentum', 1)
        if reach > updates / 2:
            runner.logger.warning(
                f'EMA: the average of the weights reaches back over {reach:.0f} updates, and the run has {updates}: it is near '
                f'the weights at the start; momentum={min(0.1, 25 / updates):.2g} is to them what 1e-4 is to 250 000'
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        super().before_save_checkpoint(runner, checkpoint)
        if not self.in_place:
            self._swap_ema_state_dict(checkpoint)
        checkpoint['ema_in_place'] = self.in_place

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        try:
            if runner._resume and 'ema_state_dict' in checkpoint and not checkpoint.get('ema_in_place', True):
                self._swap_ema_state_dict(checkpoint)  # which mmengine swaps back
            super().after_load_checkpoint(runner, checkpoint)
        except (RuntimeError, KeyError) as error:
            why = ' '.join(str(error).split())[:200]
            raise ConfigError(f'the average of the weights in the checkpoint does not fit the model: {why}') from error

    def after_train_iter(self, runner: Runner, batch_idx: int, **step: Batch) -> None:
        if not is_complete(runner):
            return
        guards = [hook for hook in runner.hooks if isinstance(hook, SkipNonFiniteHook)]
        if not any(guard.is_skipped(runner) for guard in guards):
            super().after_train_iter(runner, batch_idx, **step)


def nan_unless_finite(loss: Any) -> Any:
    """The same loss, but one that isn't finite is NaN and so are its gradients; finite ones stay what they are, bit for
    bit. Lists of tensors likewise."""
    if isinstance(loss, list | tuple):
        return [nan_unless_finite(item) for item in loss]
    return loss * (loss.detach() * 0 + 1)  # 0 times infinity is NaN


def to_host(flag: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """A copy on the host that is complete when the event has happened, without waiting for it."""
    if not flag.is_cuda:
        return flag, None
    host = torch.empty((), dtype=flag.dtype, pin_memory=True)
    host.copy_(flag, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return host, event


def gradients_of(optimizer: Optimizer) -> list[Tensor]:
    """Gradients of the parameters that have one."""
    gradients = [param.grad for group in optimizer.param_groups for param in group['params']]
    return [gradient for gradient in gradients if gradient is not None]


def gradient_norm(optimizer: Optimizer) -> Tensor:
    """2-norm of all gradients together, on their device: nothing is read back. 0 where there are none. Of shards, it is the
    norm of the whole, and all processes must come here."""
    gradients = gradients_of(optimizer)
    if not gradients:
        return torch.zeros((), device=optimizer.param_groups[0]['params'][0].device)
    norm = get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def is_not_finite(optimizer: Optimizer) -> Tensor:
    """Whether a gradient isn't finite: a bool on their device, which isn't read."""
    gradients = gradients_of(optimizer)
    first = gradients[0] if gradients else None
    if first is None or first.device.type != 'cpu' or isinstance(first, DTensor):
        return ~torch.isfinite(gradient_norm(optimizer))
    # A norm is a loop over tensors on a CPU, milliseconds for small models. This is one call, that of GradScaler, which
    # takes any mixture of types there; a product with one changes nothing.
    found = torch.zeros(())
    torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, ONE)
    return found.bool()
