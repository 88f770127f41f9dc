# SPDX-License-Identifier: Apache-2.0
"""Jobs that lose a process or are signalled: none of them hangs, and resumed they equal one that wasn't."""

import os
import signal
import sys

import pytest

WHOLE = []


@pytest.fixture
def whole(runs, outcome) -> dict:
    """What two processes end with that nothing happens to."""
    if not WHOLE:
        assert runs.run_two('--work-dir', 'whole') == [0, 0], runs.printed('log0')[-4000:]
        WHOLE.append(outcome('whole'))
    return WHOLE[0]


def test_two_processes_of_which_one_is_killed_and_resumed_equal_two_that_were_not(runs, whole, outcome, assert_same):
    options = ['--work-dir', 'killed', '--resume']
    assert runs.run_two(*options, env=dict(FAULT='SIGKILL 1 6')) == [2, -signal.SIGKILL]
    assert 'another process of this job has ended' in runs.error('log0')
    assert runs.run_two(*options, deaths=(dict(place='file', size=9000), None)) == [-signal.SIGXFSZ, 2]
    assert 'another process of this job has ended' in runs.error('log1')
    assert runs.run_two(*options) == [0, 0], runs.printed('log0')[-4000:]
    assert_same(outcome('killed'), whole)


def test_a_process_that_does_not_answer_ends_the_other_with_one_line(runs):
    options = ['--work-dir', 'stuck', '--cfg-options', 'env_cfg.dist_cfg.timeout=5']
    first, second = runs.start_two(*options, env=dict(FAULT='SIGSTOP 1 3'))
    assert runs.wait(first) == 2, runs.printed('log0')[-4000:]
    os.killpg(second, signal.SIGKILL)
    runs.wait(second)
    assert 'did not answer within env_cfg.dist_cfg.timeout seconds' in runs.error('log0')


def test_an_error_in_one_process_is_told_by_it_and_ends_the_other(runs):
    assert runs.run_two('--work-dir', 'error', env=dict(FAULT='error 1 3')) == [2, 1]
    assert 'another process of this job has ended' in runs.error('log0')
    assert 'ZeroDivisionError: made up' in runs.printed('log1')


def test_a_signal_to_the_launcher_saves_and_stops_all_processes(runs, whole, outcome, assert_same, workspace):
    assert runs.launch('--work-dir', 'stopped', env=dict(FAULT='launcher 0 5')) == 75
    assert 'Stopped by SIGTERM after step 6' in runs.printed()  # the next one that uses accumulated gradients
    assert (workspace / 'stopped' / 'last_checkpoint').read_text() == 'epoch_1.pth'  # which waited for it as well
    assert runs.run_two('--work-dir', 'stopped', '--resume') == [0, 0], runs.printed('log0')[-4000:]
    assert_same(outcome('stopped'), whole)


@pytest.mark.skipif(sys.platform != 'linux', reason='other systems tell no child')
def test_a_launcher_that_is_killed_takes_its_processes_with_it(runs, whole, outcome, assert_same):
    status = runs.launch('--work-dir', 'orphaned', env=dict(FAULT='launcher_killed 0 5'))
    assert status == -signal.SIGKILL
    assert 'Stopped by SIGTERM after step 6' in runs.printed()
    assert runs.run_two('--work-dir', 'orphaned', '--resume') == [0, 0], runs.printed('log0')[-4000:]
    assert_same(outcome('orphaned'), whole)


def test_the_launcher_starts_a_job_again_that_has_lost_a_process(runs, whole, outcome, assert_same):
    status = runs.launch('--work-dir', 'again', env=dict(FAULT='SIGKILL 1 6', MAX_RESTARTS=1))
    assert status == 0, runs.printed()[-6000:]
    assert 'resumed epoch: 1' in runs.printed()
    assert_same(outcome('again'), whole)


def test_a_dead_worker_of_the_data_loader_ends_the_run_with_one_line(runs):
    options = ['--work-dir', 'worker', '--cfg-options', 'train_dataloader.num_workers=2']
    assert runs.run(*options, env=dict(FAULT='worker 0 3')) == 2
    # which torch learns from the signal that it gets, or from looking after it
    assert 'a worker process of the data loader was killed (Killed)' in runs.error() or (
        'a worker process of the data loader ended unexpectedly' in runs.error()
    )
