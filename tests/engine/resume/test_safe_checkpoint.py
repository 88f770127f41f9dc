# SPDX-License-Identifier: Apache-2.0
import errno
import logging
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.logging import MessageHub

from ldae.engine import SafeCheckpointHook
from ldae.utils import ConfigError


def setting(
    work_dir: Path, limit: int, fail: bool = False, **options
) -> tuple[SafeCheckpointHook, SimpleNamespace, list]:
    """A hook, a runner that writes empty files, and a list of what lay in the folder at the end of each save."""
    hook, during = SafeCheckpointHook(interval=1, max_keep_ckpts=limit, **options), []
    hook.out_dir, hook.filename_tmpl, hook.keep_ckpt_ids = str(work_dir), 'epoch_{}.pth', deque([], limit)
    hook.file_backend = SimpleNamespace(join_path=lambda *parts: '/'.join(parts))

    def save_checkpoint(out_dir, filename, **kwargs):
        if fail:
            raise OSError(errno.ENOSPC, 'No space left on device')
        Path(out_dir, filename).touch()
        during.append(sorted(path.name for path in Path(out_dir).glob('*.pth')))

    runner = SimpleNamespace(
        work_dir=str(work_dir),
        message_hub=MessageHub.get_instance(str(work_dir)),
        hooks=[],
        logger=logging.getLogger('test'),
        optim_wrapper=SimpleNamespace(should_update=lambda: True),
        save_checkpoint=save_checkpoint,
    )
    return hook, runner, during


def save(hook: SafeCheckpointHook, runner: SimpleNamespace, epoch: int) -> None:
    hook._save_checkpoint_with_step(runner, epoch, dict(epoch=epoch, iter=10 * epoch))


def test_the_new_checkpoint_is_there_before_the_old_one_goes(tmp_path):
    hook, runner, during = setting(tmp_path, limit=1)
    for step in (1, 2, 3):
        save(hook, runner, step)
    assert during == [['epoch_1.pth'], ['epoch_1.pth', 'epoch_2.pth'], ['epoch_2.pth', 'epoch_3.pth']]
    assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_3.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == 'epoch_3.pth'
    assert runner.message_hub.get_info('keep_ckpt_ids') == [3]


def test_so_many_are_kept_and_a_step_saved_twice_counts_once(tmp_path):
    hook, runner, _ = setting(tmp_path, limit=2)
    for step in (1, 2, 2, 3):
        save(hook, runner, step)
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == ['epoch_2.pth', 'epoch_3.pth']
    assert list(hook.keep_ckpt_ids) == [2, 3]


def test_a_failed_save_deletes_nothing_and_keeps_the_pointer(tmp_path):
    hook, runner, _ = setting(tmp_path, limit=1)
    save(hook, runner, 1)
    hook, runner, _ = setting(tmp_path, limit=1, fail=True)
    hook.keep_ckpt_ids.append(1)
    with pytest.raises(ConfigError, match='epoch_2.pth could not be written .*: No space left on device; .* --resume'):
        save(hook, runner, 2)
    assert (tmp_path / 'epoch_1.pth').is_file()
    assert (tmp_path / 'last_checkpoint').read_text() == 'epoch_1.pth'


def test_without_a_limit_all_are_kept(tmp_path):
    hook, runner, _ = setting(tmp_path, limit=5)
    hook.max_keep_ckpts = -1
    for step in range(7):
        save(hook, runner, step)
    assert len(list(tmp_path.glob('*.pth'))) == 7


def test_training_goes_on_from_a_full_disk_if_asked_and_the_next_save_counts_as_if_nothing_had_been(tmp_path):
    hook, runner, _ = setting(tmp_path, limit=1, on_error='continue')
    save(hook, runner, 1)
    writes = runner.save_checkpoint
    runner.save_checkpoint = setting(tmp_path, limit=1, fail=True)[1].save_checkpoint
    save(hook, runner, 2)
    assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_1.pth']
    assert runner.message_hub.get_info('keep_ckpt_ids') == list(hook.keep_ckpt_ids) == [1]
    runner.save_checkpoint = writes
    save(hook, runner, 3)
    assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_3.pth']


def test_of_the_checkpoints_in_the_middle_of_epochs_the_last_is_kept_until_the_epoch_has_its_own(tmp_path):
    hook, runner, during = setting(tmp_path, limit=2)
    save(hook, runner, 1)
    for step in (12, 15):
        runner.iter, runner.epoch = step - 1, 1
        assert hook.save_step(runner)
        assert hook.save_step(runner)  # once
    assert during[1:] == [['epoch_1.pth', 'iter_12.pth'], ['epoch_1.pth', 'iter_12.pth', 'iter_15.pth']]
    assert (tmp_path / 'last_checkpoint').read_text() == 'iter_15.pth'
    save(hook, runner, 2)
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == ['epoch_1.pth', 'epoch_2.pth']


def test_by_iterations_too_the_last_of_further_checkpoints_is_kept_beside_the_others(tmp_path):
    hook, runner, _ = setting(tmp_path, limit=3, by_epoch=False)
    hook.filename_tmpl = 'iter_{}.pth'
    for step in range(10, 260, 10):
        runner.iter, runner.epoch = step - 1, 0
        if step % 100 == 0:
            hook._save_checkpoint_with_step(runner, step, dict(epoch=0, iter=step))
        else:
            assert hook.save_step(runner)
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == ['iter_100.pth', 'iter_200.pth', 'iter_250.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == 'iter_250.pth'


def test_a_checkpoint_waits_for_the_step_that_uses_accumulated_gradients(tmp_path):
    hook, runner, during = setting(tmp_path, limit=2)
    runner.optim_wrapper.should_update = lambda: False
    runner.iter, runner.epoch = 3, 0
    save(hook, runner, 1)
    assert not hook.save_step(runner)
    assert during == []
    runner.optim_wrapper.should_update = lambda: True
    hook.by_epoch, runner.iter = True, 4
    hook.after_train_iter(runner, 4)
    assert len(during) == 1


def test_the_best_checkpoint_goes_when_the_better_one_is_there(tmp_path):
    hook, runner, during = setting(tmp_path, limit=2, save_best='top1', rule='greater')
    hook.file_client_args = hook.backend_args = None
    runner.epoch, runner.iter = 1, 10
    for score in (10.0, 30.0, 20.0):
        hook.after_val_epoch(runner, dict(top1=score))
        runner.epoch += 1
    assert during == [['best_top1_epoch_1.pth'], ['best_top1_epoch_1.pth', 'best_top1_epoch_2.pth']]
    assert [path.name for path in tmp_path.glob('*.pth')] == ['best_top1_epoch_2.pth']
    whole = runner.save_checkpoint
    runner.save_checkpoint = setting(tmp_path, limit=2, fail=True)[1].save_checkpoint
    with pytest.raises(ConfigError, match='best checkpoint could not be written'):
        hook.after_val_epoch(runner, dict(top1=40.0))
    runner.save_checkpoint = whole
    assert [path.name for path in tmp_path.glob('*.pth')] == ['best_top1_epoch_2.pth']


@pytest.mark.parametrize('options', [dict(step_interval=0), dict(on_error='ignore')])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match='SafeCheckpointHook'):
        SafeCheckpointHook(**options)
