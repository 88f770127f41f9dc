# SPDX-License-Identifier: Apache-2.0
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.logging import MessageHub

from ldae.engine.hooks import SafeCheckpointHook


def setting(
    work_dir: Path, limit: int, fail: bool = False
) -> tuple[SafeCheckpointHook, SimpleNamespace, list]:
    """A hook, a runner that writes empty files, and a list of what lay in the folder at the end of each save."""
    hook, during = SafeCheckpointHook(interval=1, max_keep_ckpts=limit), []
    hook.out_dir, hook.filename_tmpl, hook.keep_ckpt_ids = str(work_dir), 'epoch_{}.pth', deque([], limit)
    hook.file_backend = SimpleNamespace(join_path=lambda *parts: '/'.join(parts))

    def save_checkpoint(out_dir, name, *args, **kwargs):
        if fail:
            raise OSError('No space left on device')
        Path(out_dir, name).touch()
        during.append(sorted(path.name for path in Path(out_dir).glob('*.pth')))

    runner = SimpleNamespace(
        work_dir=str(work_dir),
        message_hub=MessageHub.get_instance(str(work_dir)),
        save_checkpoint=save_checkpoint,
    )
    return hook, runner, during


def test_the_new_checkpoint_is_there_before_the_old_one_goes(tmp_path):
    hook, runner, during = setting(tmp_path, limit=1)
    for step in (1, 2, 3):
        hook._save_checkpoint_with_step(runner, step, {})
    assert during == [['epoch_1.pth'], ['epoch_1.pth', 'epoch_2.pth'], ['epoch_2.pth', 'epoch_3.pth']]
    assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_3.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == 'epoch_3.pth'
    assert runner.message_hub.get_info('keep_ckpt_ids') == [3]


def test_so_many_are_kept_and_a_step_saved_twice_counts_once(tmp_path):
    hook, runner, _ = setting(tmp_path, limit=2)
    for step in (1, 2, 2, 3):
        hook._save_checkpoint_with_step(runner, step, {})
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == ['epoch_2.pth', 'epoch_3.pth']
    assert list(hook.keep_ckpt_ids) == [2, 3]


def test_a_failed_save_deletes_nothing_and_keeps_the_pointer(tmp_path):
    hook, runner, _ = setting(tmp_path, limit=1)
    hook._save_checkpoint_with_step(runner, 1, {})
    hook, runner, _ = setting(tmp_path, limit=1, fail=True)
    hook.keep_ckpt_ids.append(1)
    with pytest.raises(OSError, match='No space'):
        hook._save_checkpoint_with_step(runner, 2, {})
    assert (tmp_path / 'epoch_1.pth').is_file()
    assert (tmp_path / 'last_checkpoint').read_text() == 'epoch_1.pth'
    assert hook.max_keep_ckpts == 1


def test_without_a_limit_all_are_kept(tmp_path):
    hook, runner, _ = setting(tmp_path, limit=5)
    hook.max_keep_ckpts = -1
    for step in range(7):
        hook._save_checkpoint_with_step(runner, step, {})
    assert len(list(tmp_path.glob('*.pth'))) == 7
