# SPDX-License-Identifier: Apache-2.0
"""Children hold a pipe open, which is at its end when they are."""

import os
import select
import signal
import subprocess
import sys

import pytest

from ldae.utils import signals
from ldae.utils.signals import PARENT_VARIABLE, end_with_named_parent

CHILD = """
import os, signal
from ldae.utils.signals import end_with_named_parent

end_with_named_parent()
print('ready', flush=True)
signal.pause()
"""
PARENT = """
import os, signal, subprocess, sys

subprocess.Popen([sys.executable, '-c', sys.argv[1]], env=dict(os.environ, LDAE_PARENT=str(os.getpid())))
signal.pause()
"""
# The data loader of a process that is killed.
LOADING = """
import os, signal
from torch.utils.data import DataLoader
from ldae.datasets import start_worker

loader = DataLoader(range(8), num_workers=2, persistent_workers=True, worker_init_fn=start_worker)
assert len(list(loader)) == 8
print('ready', flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""

linux_only = pytest.mark.skipif(sys.platform != 'linux', reason='other systems have no such signal')


@linux_only
@pytest.mark.parametrize('command', [[PARENT, CHILD], [LOADING]])
def test_children_end_with_a_parent_that_is_killed(command: list[str]):
    process = subprocess.Popen([sys.executable, '-W', 'ignore', '-c', *command], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout.readline() == 'ready\n'
        process.kill()
        ends, _, _ = select.select([process.stdout], [], [], 4)  # torch's workers look for their parent every 5 s
        assert ends
        assert process.stdout.read() == ''


@linux_only
def test_a_child_whose_parent_has_ended_already_ends_too():
    ended = subprocess.Popen(['true'])
    ended.wait()
    run = subprocess.run([sys.executable, '-c', CHILD], env=dict(os.environ, LDAE_PARENT=str(ended.pid)), timeout=600)
    assert run.returncode == -signal.SIGTERM


def test_only_a_child_of_the_named_one_is_bound(monkeypatch: pytest.MonkeyPatch):
    bound = []
    monkeypatch.setattr(signals, 'end_with_parent', lambda *of: bound.append(of))
    for name in ('', 'x', str(os.getpid())):  # a process between them has started this one
        monkeypatch.setenv(PARENT_VARIABLE, name)
        end_with_named_parent()
        assert PARENT_VARIABLE not in os.environ  # which our own children would take for theirs
    monkeypatch.setenv(PARENT_VARIABLE, str(os.getppid()))
    end_with_named_parent()
    assert bound == [(os.getppid(), signal.SIGTERM)]
