# SPDX-License-Identifier: Apache-2.0
"""The tool from its command line to its table; the processes it starts are tested in tests/ablation."""

import contextlib
import fcntl
import io
import json
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from ldae.ablation.study import Outcome, Progress, minutes
from ldae.cli import run_tool
from ldae.cli.options import shown_command

ROOT = Path(__file__).parents[2]
SCALE = ['--scale', 'fashion-mnist_subset']


def command(work_dir, *rows):
    return [*rows, *SCALE, '--quick', '--work-dir', str(work_dir)]


@pytest.fixture(scope='module')
def ran(tmp_path_factory):
    """Two rows of one pre-training, one of another, and one that cannot be built; what the tool printed."""
    work_dir = tmp_path_factory.mktemp('ablate')
    options = command(work_dir, 'a_t10_clean', 'a_t80_noisy', 'f5_pixel_32', '--jobs', '2')
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        patch.setenv('PYTHONPATH', str(ROOT))
        patch.setattr(sys, 'argv', ['tools/ablate.py', *options])
        status = run_tool('ablate')
    result = SimpleNamespace(returncode=status, stdout=out.getvalue(), stderr=err.getvalue())
    return work_dir / 'fashion-mnist_subset-quick', result, options


def test_every_row_has_a_result_with_what_made_it(ran):
    folder, result, _ = ran
    assert result.returncode == 0, result.stdout + result.stderr
    entries = [json.loads(line) for line in (folder / 'results.jsonl').read_text().splitlines()]
    assert sorted(entry['row'] for entry in entries) == ['a_t10_clean', 'a_t80_noisy', 'f5_pixel_32']
    for entry in entries:
        assert {'config', 'commit', 'seed', 'seconds', 'device', 'scale', 'finished'} <= set(entry)
        assert {'torch', 'mmengine', 'mmpretrain', 'ldae'} <= set(entry['versions'])
    assert str(folder) not in (folder / 'results.jsonl').read_text()


def test_progress_says_what_came_out_and_how_long_the_rest_takes(ran):
    lines = [line for line in ran[1].stdout.splitlines() if line.startswith('[')]
    assert len(lines) == 2
    assert lines[-1].startswith('[3/3]')
    assert 'left' in lines[0]


def test_the_table_is_written_and_printed(ran):
    folder, result, _ = ran
    page = (folder / 'table.md').read_text()
    for row in ('a_t10_clean', 'a_t80_noisy', 'f5_pixel_32'):
        assert f'`{row}`' in page
        assert row in result.stdout
    assert 'tools/ablate.py a_t10_clean' in page


def test_rows_of_one_pretraining_lie_in_one_folder(ran):
    folder = ran[0]
    assert (folder / 'a_t10_clean' / 'seed0' / 'epoch_2.pth').is_file()
    assert not (folder / 'a_t80_noisy').exists()


def test_what_is_done_is_skipped(ran, capsys):
    folder, _, options = ran
    before = (folder / 'results.jsonl').read_bytes()
    assert run_tool('ablate', options) == 0
    assert '3 done before, 0 to do' in capsys.readouterr().out
    assert (folder / 'results.jsonl').read_bytes() == before


def test_two_ablations_do_not_share_a_folder(ran, capsys):
    folder, _, options = ran
    with (folder / '.lock').open('ab') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run_tool('ablate', options) == 2
    assert 'is in use by another run of this tool' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('rows', 'part'),
    [
        (['t3_5_orignal-image', *SCALE], "did you mean 't3_5_original-image'?"),
        (['t3_5_original-image', '--scale', 'fashion-mnist-subset'], "did you mean 'fashion-mnist_subset'?"),
        (['table3', *SCALE, '--jobs', '0'], '--jobs=0 is out of range'),
        (['table3', *SCALE, '--seeds', '-1'], '--seeds=-1 is out of range'),
        (
            ['t3_5_*', *SCALE, '--blocks', '12'],
            't3_5_original-image: blocks: 12 is not one: the encoder has blocks 1 to 3',
        ),
        (['t3_5_*', *SCALE, '--timesteps', '1000'], 't3_5_original-image: --timesteps=1000 is out of range'),
        (
            ['t3_5_*', *SCALE, '--probe-lrs', '0.1', '--probe-weight-decays', '0'],
            'holds none out: give several --probe-lrs',
        ),
        (
            ['t3_5_*', *SCALE, '--inception', 'no.pth'],
            '--inception is of samples, and none are asked for: add --samples N',
        ),
        (['t3_5_*', *SCALE, '--steps', '10'], '--steps is of samples'),
    ],
)
def test_a_wrong_option_ends_in_one_line(rows, part, tmp_path, capsys):
    assert run_tool('ablate', [*rows, '--work-dir', str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert part in err
    assert err.count('\n') == 1
    assert not list(tmp_path.iterdir())


def test_failures_are_named_at_the_end_and_by_the_exit_status(tmp_path, capsys, monkeypatch):
    script = 'print("error: the disk is on fire"); raise SystemExit(2)'
    monkeypatch.setattr('ldae.ablation.scheduler.worker_command', lambda folder: [sys.executable, '-c', script])
    assert run_tool('ablate', command(tmp_path, 't3_5*', 't3_6*')) == 1
    out = capsys.readouterr().out
    assert 'FAILED t3_5_original-image seed 0: the disk is on fire' in out
    assert 'FAILED t3_6_single-level seed 0: the disk is on fire' in out


def test_an_interrupt_is_answered_with_how_to_go_on(tmp_path, monkeypatch, capsys):
    script = 'import os, signal; os.kill(os.getppid(), signal.SIGTERM); import time; time.sleep(60)'
    monkeypatch.setattr('ldae.ablation.scheduler.worker_command', lambda folder: [sys.executable, '-c', script])
    before, start = signal.getsignal(signal.SIGTERM), time.monotonic()
    assert run_tool('ablate', command(tmp_path, 't3_5*')) == 130
    assert signal.getsignal(signal.SIGTERM) == before
    assert time.monotonic() - start < 30
    assert 'the same command goes on from here' in capsys.readouterr().out


def test_force_runs_what_is_done_again(ran, monkeypatch, capsys):
    folder, _, options = ran
    script = 'raise SystemExit("stub")'
    monkeypatch.setattr('ldae.ablation.scheduler.worker_command', lambda folder: [sys.executable, '-c', script])
    checkpoint = folder / 'f5_pixel_32' / 'seed0' / 'epoch_2.pth'
    assert checkpoint.is_file()
    args = ['f5_pixel_32', *options[3:], '--force']
    assert run_tool('ablate', args) == 1
    assert '0 done before, 1 to do' in capsys.readouterr().out
    assert not checkpoint.exists()


@pytest.mark.parametrize('where', [['--work-dir', 'a b'], ['--work-dir=x']])
def test_the_command_in_the_report_names_no_folder_of_this_machine(where):
    shown = shown_command(['table3', 't2_*', *where, '--jobs', '2'])
    assert shown == "tools/ablate.py table3 't2_*' --jobs 2"


def test_time_left_follows_from_the_epochs_that_are_left(monkeypatch):
    clock = iter([0.0, 60.0])
    monkeypatch.setattr(time, 'monotonic', lambda: next(clock))

    class Job:
        name, members = 'a seed 0', [None]

    line = Progress(weight=40, rows=4).line(Job, [dict(row='a', knn=50.0, linear=51.0)], 10)
    assert line == '[1/4] a seed 0: k-NN / linear: a 50.0 / 51.0; 60 s so far, about 3 min left'
    assert [minutes(s) for s in (0, 89, 91, 7200)] == ['0 s', '89 s', '2 min', '2.0 h']


def test_what_differs_from_the_protocol_is_said(monkeypatch):
    taken = {}
    monkeypatch.setattr('ldae.ablation.ablate', lambda rows, **options: taken.update(options) or Outcome([], [], {}))
    options = ['--probe-lrs', '1', '3', '--probe-epochs', '7', '--timesteps', '10', '20', '--blocks', '-2', '-1']
    assert run_tool('ablate', ['table3', *SCALE, *options, '--max-test-images', '9']) == 0
    scoring = taken['scoring']
    assert str(scoring.protocol) == 'ldae-1 (lrs=(1.0, 3.0), epochs=7)'
    assert (taken['timesteps'], scoring.blocks, scoring.test_images) == ([10, 20], (-2, -1), 9)
