# SPDX-License-Identifier: Apache-2.0
"""A checkpoint is never deleted before the next one is safe."""

from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from ldae.engine.checkpoint import write_pointer
from ldae.registry import HOOKS


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, which deletes the oldest checkpoint before it writes a new one: with
    ``max_keep_ckpts=1``, being killed in between loses all. Here the new one comes first; ``last_checkpoint`` holds a
    name, not an absolute path. Options are mmengine's."""

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        outdated = self._note(runner, step) if self.max_keep_ckpts > 0 else []
        limit, self.max_keep_ckpts = self.max_keep_ckpts, -1
        try:
            super()._save_checkpoint_with_step(runner, step, meta)
        finally:
            self.max_keep_ckpts = limit
        if is_main_process():
            write_pointer(runner.work_dir, Path(self.last_ckpt).name)
            for old in outdated:
                Path(self.out_dir, self.filename_tmpl.format(old)).unlink(missing_ok=True)

    def _note(self, runner: Runner, step: int) -> list[int]:
        """Record which checkpoints there will be, also for a resumed run, and return those to be deleted."""
        kept = [old for old in self.keep_ckpt_ids if old != step] + [step]
        outdated = kept[: -self.max_keep_ckpts]
        self.keep_ckpt_ids.clear()
        self.keep_ckpt_ids.extend(kept[len(outdated) :])
        runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        return outdated
