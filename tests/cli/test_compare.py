# SPDX-License-Identifier: Apache-2.0
"""From the command line to the call; what the call does is tested in tests/ablation."""

import inspect

import pytest

from ldae.ablation import Outcome, Study, compare
from ldae.cli import run_tool


@pytest.fixture
def taken(monkeypatch):
    """What the tool calls ``ldae.compare`` with."""
    taken = {}
    monkeypatch.setattr('ldae.ablation.compare', lambda **options: taken.update(options) or Outcome({}, [], {}))
    return taken


def test_the_tool_calls_what_a_notebook_calls(taken):
    arguments = ['--no-pixels', '--seeds', '3', '4', '--mae-checkpoints', 'a.pth', 'b.pth', '--work-dir', 'x']
    assert run_tool('compare', arguments) == 0
    known = {*inspect.signature(compare).parameters, *inspect.signature(Study).parameters}
    assert set(taken) <= known
    assert (taken['pixels'], taken['seeds'], taken['work_dir']) == (False, [3, 4], 'x')
    assert [path.name for path in taken['mae_checkpoints']] == ['a.pth', 'b.pth']
    assert taken['command'] == 'tools/compare.py --no-pixels --seeds 3 4 --mae-checkpoints a.pth b.pth'
    defaults = inspect.signature(compare).parameters
    assert all(taken[name] == defaults[name].default for name in ('ldae', 'mae', 'scoring', 'quick'))


def test_a_failed_run_is_the_exit_status(taken, monkeypatch):
    monkeypatch.setattr('ldae.ablation.compare', lambda **options: Outcome({}, ['a failure'], {}))
    assert run_tool('compare', []) == 1
