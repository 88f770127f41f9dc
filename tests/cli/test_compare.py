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
    assert all(taken[name] == defaults[name].default for name in ('ldae', 'mae', 'methods', 'scoring', 'quick'))


def test_methods_have_names_and_maybe_sources(taken):
    words = ['--method', 'ldae', 'mine=a.py', '--method', 'mae=a.pth,b.pth', '--rates', '0.5', '2', '--poolings', 'cls']
    assert run_tool('compare', [*words, '--attentive', 'aim']) == 0
    assert taken['methods'] == dict(ldae=None, mine='a.py', mae=['a.pth', 'b.pth'])
    assert taken['rates'] == [0.5, 2.0]
    assert (taken['scoring'].poolings, taken['scoring'].attentive) == (('cls',), ('aim',))


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        (['--method', 'a=x.py', 'a=y.py'], 'each method needs a name of its own'),
        (['--poolings', 'max'], "--poolings[0]='max' is unknown"),
        (['--attentive', 'all'], "--attentive[0]='all' is unknown"),
        (['--budget', '5m'], 'belongs to --scale auto'),
    ],
)
def test_what_cannot_be_is_one_line(taken, capsys, arguments, says):
    assert run_tool('compare', arguments) == 2
    assert says in capsys.readouterr().err.strip()
    assert not taken


def test_a_failed_run_is_the_exit_status(taken, monkeypatch):
    monkeypatch.setattr('ldae.ablation.compare', lambda **options: Outcome({}, ['a failure'], {}))
    assert run_tool('compare', []) == 1
