# SPDX-License-Identifier: Apache-2.0
"""Runs that are killed at random moments: resumed, they equal one that wasn't. Two that aren't are equal."""

import json
import random
import signal

import pytest

TIMES = 20


def deaths(workspace, seed: int) -> list[dict]:
    """Half of them anywhere in a third of a training, a quarter during a save, a quarter in the middle of its file."""
    counts = json.loads((workspace / 'count').read_text())
    size = max(path.stat().st_size for path in (workspace / 'whole').glob('*.pth'))
    draw = random.Random(seed)
    chosen = [dict(place='training', call=draw.randrange(counts['training'] // 3)) for _ in range(TIMES // 2)]
    chosen += [dict(place='save', call=draw.randrange(counts['save'])) for _ in range(TIMES // 4)]
    chosen += [dict(place='file', size=draw.randrange(size // 4, size)) for _ in range(TIMES // 4)]
    draw.shuffle(chosen)
    return chosen


def test_the_same_run_twice_gives_the_same_bits(runs, outcome, assert_same):
    for name in ('once', 'twice'):
        status = runs.run('--work-dir', name, '--cfg-options', 'randomness.deterministic=True', 'randomness.seed=3')
        assert status == 0, runs.printed()[-4000:]
    assert_same(outcome('once'), outcome('twice'))


@pytest.mark.parametrize('workers', [0, 2])
def test_a_run_killed_at_20_random_moments_equals_one_that_was_not(runs, workspace, outcome, assert_same, workers):
    options = ['--resume', '--cfg-options', f'train_dataloader.num_workers={workers}', '--work-dir']
    assert runs.run(*options, 'whole', count=str(workspace / 'count')) == 0, runs.printed()[-4000:]
    whole = outcome('whole')
    waiting, run, finished = deaths(workspace, seed=workers), 0, 0
    while waiting:
        status = runs.run(*options, f'killed_{run}', death=waiting[-1])
        assert status in (0, -signal.SIGKILL, -signal.SIGXFSZ), runs.printed()[-4000:]
        if status:
            waiting.pop()
        else:  # it came to its end before the moment came
            assert_same(outcome(f'killed_{run}'), whole)
            run, finished = run + 1, finished + 1
        assert finished <= TIMES
    assert runs.run(*options, f'killed_{run}') == 0, runs.printed()[-4000:]
    assert_same(outcome(f'killed_{run}'), whole)
