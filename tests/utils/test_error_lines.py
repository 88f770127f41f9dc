# SPDX-License-Identifier: Apache-2.0
import errno
import pickle
from contextlib import nullcontext

import pytest
import torch

from ldae.cli import run_tool
from ldae.utils import ConfigError, error_lines
from ldae.utils.error_lines import one_line, run_explained

WORKER = """Caught ConfigError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "a.py", line 1, in fetch
ldae.utils.errors.ConfigError: x.jpg is not a readable image: remove or replace it
"""


@pytest.mark.parametrize(
    ('error', 'part'),
    [
        (ConfigError('what, where, what to do'), 'what, where, what to do'),
        (ConfigError(WORKER), 'x.jpg is not a readable image: remove or replace it'),
        (AssertionError('failed to load image: y.jpg'), 'y.jpg is not a readable image'),
        (pickle.UnpicklingError('Weights only load failed ...\n...'), 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1'),
        (OSError(errno.ENOSPC, 'No space left on device'), 'no space left'),
        (RuntimeError('write failed: No space left on device'), 'no space left'),
        (FileNotFoundError(errno.ENOENT, 'No such file', 'a.txt'), 'a.txt does not exist'),
        (
            NotADirectoryError(errno.ENOTDIR, 'Not a directory', 'a/b'),
            'a/b is a file, or lies below one: name another path',
        ),
        (FileExistsError(errno.EEXIST, 'File exists', 'a/b'), 'a/b is a file, or lies below one'),
        (IsADirectoryError(errno.EISDIR, 'Is a directory', 'a/b'), 'a/b is a folder: name another path'),
        (RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...'), 'lower the batch size'),
        (RuntimeError("[enforce fail ...] DefaultCPUAllocator: can't allocate memory: ..."), 'lower the batch size'),
        (RuntimeError('DataLoader timed out after 600 seconds'), 'no worker of the data loader gave a batch in time'),
        (RuntimeError('PytorchStreamReader failed reading zip archive: ...'), 'damaged or truncated'),
    ],
)
def test_errors_of_users_are_one_line(error: Exception, part: str):
    line = one_line(error)
    assert part in line
    assert '\n' not in line


def test_errors_of_the_program_stay():
    assert one_line(KeyError('x')) is None
    with pytest.raises(KeyError):
        run_explained(lambda argv: {}['x'])


def test_status_and_message(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv('LDAE_TRACEBACK', raising=False)

    def fail(argv: object) -> None:
        raise ConfigError('no such thing')

    assert run_explained(fail) == 2
    assert capsys.readouterr().err == 'error: no such thing\n'
    monkeypatch.setenv('LDAE_TRACEBACK', '1')
    with pytest.raises(ConfigError):
        run_explained(fail)


def test_other_ranks_give_way_to_the_first(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    waited = []
    monkeypatch.setattr(error_lines.time, 'sleep', waited.append)

    def fail(argv: object) -> None:
        raise ConfigError('no such thing')

    for rank in '01':
        monkeypatch.setenv('LOCAL_RANK', rank)
        assert run_explained(fail) == 2
    assert waited == [error_lines.SECONDS_TO_GIVE_WAY]
    assert capsys.readouterr().err == 2 * 'error: no such thing\n'


def test_a_truncated_checkpoint_is_one_line(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save(dict(a=torch.zeros(1000)), path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(RuntimeError) as caught:
        torch.load(path)
    assert 'damaged' in one_line(caught.value)


def test_a_call_in_cfg_options_is_one_line(capsys):
    config = 'ldae::ldae/vit-b_pca.py'
    status = run_tool('print-config', [config, '--cfg-options', 'model.backbone.arch=dict(embed_dims=32,num_layers=1)'])
    assert status == 2
    assert 'takes no nested calls' in capsys.readouterr().err


def test_spaces_in_cfg_options_are_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        run_tool('print-config', ['ldae::ldae/vit-b_pca.py', '--cfg-options', 'train_cfg.max_epochs', '=', '1'])
    assert caught.value.code == 2
    assert "'train_cfg.max_epochs' must read KEY=VALUE, without spaces" in capsys.readouterr().err


def test_an_interrupt_is_a_word_and_the_status_that_shells_know(capsys):
    def interrupted(argv: object) -> None:
        raise KeyboardInterrupt

    assert run_explained(interrupted) == 130
    assert capsys.readouterr().err == 'interrupted\n'


@pytest.mark.parametrize(('end', 'is_left'), [(None, True), (SystemExit(75), True), (ConfigError('a line'), False)])
def test_a_run_that_comes_to_its_end_leaves_its_process_group(tmp_path, monkeypatch, end, is_left):
    monkeypatch.setenv('LOCAL_RANK', '0')
    torch.distributed.init_process_group('gloo', f'file://{tmp_path}/store', rank=0, world_size=1)

    def main(argv: object) -> None:
        if end is not None:
            raise end

    try:
        with pytest.raises(SystemExit) if isinstance(end, SystemExit) else nullcontext():
            run_explained(main)
        assert torch.distributed.is_initialized() != is_left
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


KILLED = 'DataLoader worker (pid 7) is killed by signal: {}. '


@pytest.mark.parametrize(
    ('text', 'cause'),
    [
        (KILLED.format('Killed'), '(Killed): often for want of memory'),
        (KILLED.format('Bus error') + 'It is possible', '(Bus error): often for want of shared memory'),
        (KILLED.format('Terminated'), '(Terminated): another process has sent it'),
        (KILLED.format('Segmentation fault'), '(Segmentation fault): it says why above'),
        ('DataLoader worker (pid(s) 7, 8) exited unexpectedly', 'unexpectedly: it says why above'),
    ],
)
def test_a_lost_worker_is_explained_by_what_has_ended_it(text, cause):
    line = one_line(RuntimeError(text))
    assert cause in line
    assert line.endswith('--resume goes on from the last checkpoint')
