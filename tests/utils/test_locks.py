# SPDX-License-Identifier: Apache-2.0
"""Others that want the same folder are processes of their own here."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ldae.utils import ConfigError
from ldae.utils.locks import LOCK_FILE, claimed

CLAIM = """
import os, sys
from ldae.utils.locks import claimed

with claimed(sys.argv[1]):
    child = os.fork()  # such as a worker of a data loader
    if not child:
        print('ready', flush=True)
    sys.stdin.read()
    os._exit(0) if not child else None
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen]:
    """A process that has the folder, and a child that has nothing to do with it."""
    command = [sys.executable, '-c', CLAIM, str(tmp_path / 'run')]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        yield process
        process.stdin.close()


def test_another_is_told_who_has_the_folder_until_that_ends(tmp_path: Path, other: subprocess.Popen):
    named = rf'run is in use by process {other.pid} on {platform.node()} since .*: wait for it, or take another folder'
    with pytest.raises(ConfigError, match=named), claimed(tmp_path / 'run'):
        pass
    other.communicate('')
    with claimed(tmp_path / 'run'):
        assert json.loads((tmp_path / 'run' / LOCK_FILE).read_text())['pid'] == os.getpid()


def test_a_killed_owner_holds_nobody_up_also_while_its_workers_live(tmp_path: Path, other: subprocess.Popen):
    other.kill()
    other.wait()
    with claimed(tmp_path / 'run'):
        assert json.loads((tmp_path / 'run' / LOCK_FILE).read_text())['pid'] == os.getpid()


def owned_elsewhere(folder: Path, **about: str) -> None:
    owner = dict(host='elsewhere', pid=12, since='2026-01-02 03:04:05', job=None, start='0')
    (folder / LOCK_FILE).write_text(json.dumps(dict(owner, **about)))


def test_an_owner_on_another_machine_may_live(tmp_path: Path):
    owned_elsewhere(tmp_path)
    wanted = (
        'in use by process 12 on elsewhere since 2026-01-02 03:04:05, or was when that was killed.*or remove .*lock$'
    )
    with pytest.raises(ConfigError, match=wanted), claimed(tmp_path):
        pass
    assert (tmp_path / LOCK_FILE).exists()


@pytest.mark.parametrize(('start', 'is_free'), [('0', False), ('1', True)])
def test_a_job_that_was_requeued_is_not_held_up_by_itself(tmp_path: Path, monkeypatch, start: str, is_free: bool):
    monkeypatch.setenv('SLURM_JOB_ID', '77')
    monkeypatch.setenv('SLURM_RESTART_COUNT', start)
    owned_elsewhere(tmp_path, job='SLURM_JOB_ID 77')
    if is_free:
        with claimed(tmp_path):
            pass
        return
    with pytest.raises(ConfigError, match='elsewhere'), claimed(tmp_path):
        pass


@pytest.mark.parametrize('text', ['', '{"host": ', '[1]', 'null', '"x"'])
def test_what_is_no_owner_holds_nothing(tmp_path: Path, text: str):
    (tmp_path / LOCK_FILE).write_text(text)
    with claimed(tmp_path):
        pass


def test_nothing_is_left_but_what_was_written_and_rests_of_checkpoints_go(tmp_path: Path):
    with claimed(tmp_path / 'new' / 'run'):
        pass
    assert list((tmp_path / 'new').iterdir()) == []
    for name in ('epoch_1.pth', '.epoch_2.pth.unfinished', '.epoch_2.pth.host-3.unfinished', '.notes.md.unfinished'):
        (tmp_path / name).touch()
    with claimed(tmp_path):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {'new', 'epoch_1.pth', '.notes.md.unfinished'}


def test_an_error_lets_go_of_it(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), claimed(tmp_path / 'run'):
        1 / 0  # noqa: B018
    with claimed(tmp_path / 'run'):
        pass
