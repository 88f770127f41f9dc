# SPDX-License-Identifier: Apache-2.0
"""docs/how_long.md holds what finished runs took, and nothing else."""

import importlib
import json

import pytest
from pages import DOCS, ROOT, not_stale


@pytest.fixture
def how_long(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    return importlib.import_module('how_long')


def test_the_page_is_what_the_results_say(how_long):
    text = how_long.page()
    if (DOCS / 'how_long.md').read_text() != text:
        pytest.fail('docs/how_long.md is out of date: run python benchmarks/how_long.py', pytrace=False)
    not_stale({DOCS / 'how_long.md': text})


def test_a_line_is_the_runs_of_one_kind_on_one_machine(how_long, monkeypatch: pytest.MonkeyPatch):
    def run(row: str, seconds: float, commit: str = 'a') -> dict:
        same = dict(epochs=2, scale='the configs', folder='x', device='CPU', commit=commit, versions=dict(torch='2'))
        return dict(same, row=row, images=dict(train_images=5000), seconds=dict(train=seconds, scoring=1.0))

    (head, *lines), places = how_long.table(
        [run('mae', 7.0), run('mae', 3.0), run('mae', 5.2), run('ldae', 9.0), run('mae', 1.0, 'b')]
    )
    assert [dict(zip(head, line, strict=True))['training'] for line in lines] == ['9 s', '5 s (3 to 7)', '1 s']
    assert [line[-1] for line in lines] == ['1', '1', '2']
    assert places == ['CPU, torch 2, commit `a`', 'CPU, torch 2, commit `b`']


def test_what_is_scored_beside_a_training_is_not_a_training(how_long):
    assert not any(run['row'].endswith(('untrained', 'pixels', 'latents')) for run in how_long.runs())
    assert len(how_long.runs()) > 100


def test_commands_that_were_timed_are_commands_of_today(how_long, monkeypatch: pytest.MonkeyPatch, tmp_path):
    one = dict(command='train --help', seconds=3.2, processor=2.6, device='CPU', torch='2', commit='a')
    monkeypatch.setattr(how_long, 'TOOLS', tmp_path / 'tools.jsonl')
    how_long.TOOLS.write_text(''.join(json.dumps(run) + '\n' for run in (one, dict(one, commit='b', processor=4.0))))
    (_, *lines), places = how_long.commands()
    assert lines == [['`ldae train --help`', '3 s', '3 s', 'a'], ['`ldae train --help`', '4 s', '3 s', 'b']]
    assert places == ['a: CPU, torch 2, commit `a`', 'b: CPU, torch 2, commit `b`']
    for name, *arguments in map(str.split, how_long.COMMANDS):
        if '--help' not in arguments:
            assert importlib.import_module(f'ldae.cli.{name}').parse_args(arguments)
