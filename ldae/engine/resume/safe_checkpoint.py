# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that hold all that is needed to go on from any step, and are deleted only when the next one is safe."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ldae.engine.hook import Batch, LDAEHook, call_hooks, is_complete
from ldae.registry import HOOKS
from ldae.utils import Choice, ConfigError, PositiveInt, checked
from ldae.utils.checkpoints import check_archive
from ldae.utils.files import atomic_write_text

from .checkpoint_notes import STEP_FILE, is_own_file
from .loops import EPOCH, STEP, VALIDATION, Resumable


@HOOKS.register_module()
class SafeCheckpointHook(LDAEHook, CheckpointHook):
    """mmengine's CheckpointHook, but a new checkpoint, also the best one, is written before the one before is deleted.

    mmengine deletes first: with ``max_keep_ckpts=1``, being killed in between loses all. ``last_checkpoint`` holds a
    name here, not an absolute path. While gradients accumulate, a checkpoint waits for the step that uses them. Raises
    ConfigError when a checkpoint can't be written and ``on_error='stop'``.

    Args:
        interval: Epochs between checkpoints, or steps with ``by_epoch=False``; -1: none.
        step_interval: Steps between further checkpoints in the middle of epochs, of which the last is kept; None: none.
        on_error: What a checkpoint that can't be written does, say on a full disk: 'stop' the run, or 'continue' it until
            the next one is due. The ones before stay in either case.
        **kwargs: As in CheckpointHook (``max_keep_ckpts``, ``save_best``, ...).
    """

    @checked
    def __init__(
        self,
        interval: int = -1,
        step_interval: PositiveInt | None = None,
        on_error: Annotated[str, Choice('stop', 'continue')] = 'stop',
        **kwargs,
    ) -> None:
        super().__init__(interval, **kwargs)
        self.step_interval, self.on_error = step_interval, on_error
        self.saved_step: int | None = None
        self._moment = STEP
        self._waiting: Callable[[Runner, dict], None] | None = None
        self._held_back: tuple[int, dict] | None = None
        self._saves_best = False

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        if self.save_best is not None:  # a folder that was moved
            self._set_best(
                {key: path and str(Path(self.out_dir, Path(path).name)) for key, path in self._best().items()}
            )

    def after_train_iter(self, runner: Runner, batch_idx: int, **step: Batch) -> None:
        self._moment = STEP
        super().after_train_iter(runner, batch_idx, **step)
        if self._waiting is not None:
            self._write_when_complete(runner, self._waiting)
        elif self.step_interval and self.every_n_train_iters(runner, self.step_interval):
            self.save_step(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        self._moment = EPOCH
        super().after_train_epoch(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        self._moment = VALIDATION
        super().after_val_epoch(runner, metrics)

    def after_train(self, runner: Runner) -> None:
        if self._waiting is not None:  # stopped early, and the accumulated gradients with it
            self._moment, write, self._waiting = VALIDATION, self._waiting, None
            write(runner, dict(epoch=runner.epoch, iter=runner.iter))
        super().after_train(runner)

    def save_step(self, runner: Runner) -> bool:
        """In ``after_train_iter``: save this step, unless that was done; False if it has to wait for gradients."""
        if self.saved_step != runner.iter + 1:
            self._write_when_complete(runner, self._waiting or self._write_step)
        return self._waiting is None

    def _write_when_complete(self, runner: Runner, write: Callable[[Runner, dict], None]) -> None:
        complete = is_complete(runner)
        self._waiting = None if complete else write
        if complete:
            write(runner, dict(epoch=runner.epoch, iter=runner.iter + 1))

    def _write_step(self, runner: Runner, meta: dict) -> None:
        name = STEP_FILE.format(meta['iter'])
        before = self._store(runner, name, meta, dict(step_checkpoint=name))
        if before is not None and before['step_checkpoint'] != name:
            self._delete([before['step_checkpoint']])

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        if self._saves_best:
            self._held_back = step, meta
        elif is_complete(runner):
            self._write(runner, step, meta)
        else:
            self._waiting = lambda runner, meta: self._write(runner, step, meta)

    def _write(self, runner: Runner, step: int, meta: dict) -> None:
        notes, outdated = dict(step_checkpoint=None), []
        if self.max_keep_ckpts > 0:
            kept = [old for old in self.keep_ckpt_ids if old != step] + [step]
            outdated, kept = kept[: -self.max_keep_ckpts], kept[-self.max_keep_ckpts :]
            notes['keep_ckpt_ids'] = kept
        before = self._store(runner, self.filename_tmpl.format(step), meta, notes)
        if before is None:
            return
        if self.max_keep_ckpts > 0:
            self.keep_ckpt_ids.clear()
            self.keep_ckpt_ids.extend(kept)
        self._delete([before['step_checkpoint'], *map(self.filename_tmpl.format, outdated)])

    def _store(self, runner: Runner, name: str, meta: dict, notes: dict) -> dict | None:
        """Write a checkpoint that holds ``notes`` on itself and the others; return the notes of before, None if it failed."""
        info, step = runner.message_hub.runtime_info, meta['iter']
        before = {key: info.get(key) for key in notes}
        for key, value in notes.items():
            runner.message_hub.update_info(key, value)
        call_hooks(runner, 'before_state_is_saved')
        options = dict(save_optimizer=self.save_optimizer, save_param_scheduler=self.save_param_scheduler)
        options |= dict(file_client_args=self.file_client_args, backend_args=self.backend_args, **self.args)

        def write() -> None:
            runner.save_checkpoint(self.out_dir, filename=name, meta=meta, by_epoch=False, **options)
            if is_main_process():
                write_pointer(runner.work_dir, name)

        if not self._attempt(runner, name, write):
            info.update(before)
            return None
        self.saved_step, self.last_ckpt = step, str(Path(self.out_dir, name))
        return before

    def _attempt(self, runner: Runner, name: str, write: Callable[[], None]) -> bool:
        """Whether rank 0 could write, known to all."""
        failure, cause = [None], None
        try:
            write()
        except (OSError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and 'PytorchStreamWriter' not in str(error):
                raise
            failure, cause = [getattr(error, 'strerror', None) or str(error).splitlines()[0]], error
        broadcast_object_list(failure)
        if failure[0] is None:
            return True
        line = f'{name} could not be written to {self.out_dir}: {failure[0]}; the checkpoints before it are whole'
        if self.on_error == 'stop':
            raise ConfigError(f'{line}: make room, then --resume') from cause
        runner.logger.error(f'{line}; training goes on')
        return False

    def _delete(self, names: list[str | None]) -> None:
        # They may be notes of a resumed checkpoint, which is a stranger's perhaps.
        own = re.compile('.*'.join(map(re.escape, self.filename_tmpl.split('{}'))))
        for name in filter(None, names if is_main_process() else ()):
            if is_own_file(name) or isinstance(name, str) and own.fullmatch(name) and Path(name).name == name:
                Path(self.out_dir, name).unlink(missing_ok=True)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        """Write the new best checkpoint before the one before goes."""
        if not self.save_best:
            return
        info, old = runner.message_hub.runtime_info, self._best()
        before = {key: value for key, value in info.items() if key.startswith('best_')}
        self._set_best(dict.fromkeys(old))  # so that mmengine finds nothing to delete
        self._saves_best, self._held_back = True, None
        best = super()._save_best_checkpoint
        try:
            done = self._attempt(runner, 'the best checkpoint', lambda: best(runner, metrics))
        finally:
            self._saves_best = False
        if not done:
            self._set_best(old)
            info.update(dict.fromkeys(key for key in info if key.startswith('best_score')) | before)
            return
        new = {key: path or old[key] for key, path in self._best().items()}
        self._set_best(new)
        self._delete([Path(path).name for path in old.values() if path and path not in new.values()])
        if self._held_back is not None:
            self._save_checkpoint_with_step(runner, *self._held_back)

    def _best(self) -> dict[str, str | None]:
        if len(self.key_indicators) == 1:
            return {self.key_indicators[0]: self.best_ckpt_path}
        return {key: self.best_ckpt_path_dict.get(key) for key in self.key_indicators}

    def _set_best(self, paths: dict[str, str | None]) -> None:
        if len(paths) == 1:
            (self.best_ckpt_path,) = paths.values()
        else:
            self.best_ckpt_path_dict.update(paths)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the place in the data, and what was still to be done."""
        if isinstance(runner.train_loop, Resumable):
            checkpoint['progress'] = runner.train_loop.progress(self._moment)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Go on from there."""
        if runner._resume and isinstance(runner._train_loop, Resumable) and 'progress' in checkpoint:
            runner.train_loop.restore(checkpoint['progress'])


POINTER = 'last_checkpoint'


def write_pointer(work_dir: str | os.PathLike, name: str) -> None:
    """Let ``last_checkpoint`` hold the bare name of a checkpoint of the folder, so that the folder can be moved."""
    atomic_write_text(Path(work_dir) / POINTER, name)


def latest_checkpoint(work_dir: str | os.PathLike) -> Path | None:
    """The checkpoint that ``last_checkpoint`` names if it can be read, else the newest that can; None if there is none.
    Raises ConfigError if there are some and none can be read, which starting anew would overwrite."""
    candidates = _candidates(Path(work_dir))
    for path in candidates:
        try:
            check_archive(path)
            # Memory-mapped, since the tensors are read later.
            content = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
            if not isinstance(content, dict):
                raise ConfigError(f'it holds a {type(content).__name__}, not a checkpoint')
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            print_log(f'{path} cannot be read ({reason}): trying the one before', 'current', level=30)
            continue
        return path
    if candidates:
        raise ConfigError(
            f'none of the {len(candidates)} checkpoints in {work_dir} can be read: move them away to start anew'
        )
    return None


def _candidates(work_dir: Path) -> list[Path]:
    """Checkpoints in the folder, the pointed one first, then from new to old."""
    # Not a pipe, at which reading would wait, and not a link that leads nowhere.
    files = [path for path in work_dir.glob('*.pth') if path.is_file()]
    found = sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True)
    found = [path for path in found if path.name.startswith(('epoch_', 'iter_'))]
    pointer = work_dir / POINTER
    # mmengine's pointer holds an absolute path: its name is what still holds after a move.
    named = work_dir / Path(pointer.read_text(errors='replace').strip()).name if pointer.is_file() else None
    return [path for path in [named] if path in found] + [path for path in found if path != named]
