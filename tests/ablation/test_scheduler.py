# SPDX-License-Identifier: Apache-2.0
"""Processes are small scripts here."""

import os
import signal
import sys
import threading
import time

import pytest
from made_up import make_row

from ldae.ablation import Scheduler, plan_jobs
from ldae.ablation.scheduler import last_line, worker_environment

SCORE = dict(row='r', config='c', knn=1, linear=1)
WRITE = 'import json; json.dump({}, open(f + "/scores.json", "w"))'
GOOD, HALF = WRITE.format([SCORE]), WRITE.format([SCORE, dict(row='s', config='d', error='too noisy')])
BAD = 'print("noise"); print("error: no such patch"); print("later"); raise SystemExit(2)'
CRASH = '1 / 0'
SLOW = 'import time; open(f + "/started", "w"); time.sleep(60)'


@pytest.fixture
def make(load, tmp_path, monkeypatch):
    """Jobs that run these scripts; ``f`` is a job's folder."""

    def make(*scripts):
        jobs = [plan_jobs([make_row(f'row{i}')], [0], tmp_path / str(i), load)[0] for i in range(len(scripts))]
        by_folder = {str(job.folder): script for job, script in zip(jobs, scripts, strict=True)}
        monkeypatch.setattr(
            'ldae.ablation.scheduler.worker_command',
            lambda folder: [sys.executable, '-c', f'f = {str(folder)!r}\n{by_folder[str(folder)]}'],
        )
        return jobs

    return make


def test_a_failing_job_stops_no_other_and_its_error_is_kept(make):
    done = []
    jobs = make(BAD, GOOD, CRASH, GOOD)
    failures = Scheduler(jobs, 2, lambda job, scores: done.append((job, scores))).run()
    assert {id(job) for job, _ in done} == {id(jobs[1]), id(jobs[3])}
    assert done[0][1] == [SCORE]
    reasons = {failure.name: failure.reason for failure in failures}
    assert reasons == {'row0 seed 0': 'no such patch', 'row2 seed 0': 'ZeroDivisionError: division by zero'}


def test_a_row_whose_probe_fails_takes_no_score_from_the_others(make):
    done = []
    failures = Scheduler(make(HALF), 1, lambda job, scores: done.append(scores)).run()
    assert done == [[SCORE]]
    assert [(f.name, f.reason) for f in failures] == [('s seed 0', 'too noisy')]


def test_jobs_wait_for_their_tokenizer_and_fail_with_it(make):
    started = []
    jobs = make(BAD, GOOD, GOOD)
    jobs[0].members = []
    jobs[1].after = jobs[0]
    failures = Scheduler(jobs, 2, lambda job, scores: started.append(job.name)).run()
    assert started == ['row2 seed 0']
    assert [f.name for f in failures] == ['row0 seed 0', 'row1 seed 0']
    assert failures[1].reason == 'row0 seed 0 failed'


def test_a_job_starts_after_its_tokenizer(make):
    order = []
    jobs = make(GOOD, GOOD)
    jobs[0].after = jobs[1]
    assert not Scheduler(jobs, 2, lambda job, scores: order.append(job.name)).run()
    assert order == ['row1 seed 0', 'row0 seed 0']


@pytest.fixture
def interruptible():
    """Whatever started the tests: a shell lets what it runs in the background ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures('interruptible')
def test_an_interrupt_stops_the_processes(make):
    job = make(SLOW)[0]

    def interrupt():
        while not (job.folder / 'started').exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    scheduler = Scheduler([job], 1, None)
    with pytest.raises(KeyboardInterrupt):
        scheduler.run()
    process = scheduler.running[0][1]
    assert process.returncode == -signal.SIGTERM


@pytest.mark.usefixtures('interruptible')
def test_a_run_has_all_the_time_to_save_unless_a_second_interrupt_comes(make, tmp_path, capsys):
    for name in ('started', 'saving'):
        os.mkfifo(tmp_path / name)  # which opens when both ends do
    script = f"""
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # it waits for sigwait, whenever it comes
open('{tmp_path}/started', 'w')
signal.sigwait([signal.SIGTERM])
open('{tmp_path}/saving', 'w')
signal.pause()
"""

    def interrupt_twice():
        for name in ('started', 'saving'):
            (tmp_path / name).read_text()
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt_twice, daemon=True).start()
    scheduler = Scheduler(make(script), 1, None)
    with pytest.raises(KeyboardInterrupt):
        scheduler.run()
    assert scheduler.running[0][1].returncode == -signal.SIGKILL
    assert 'Stopping after the steps of now, with checkpoints' in capsys.readouterr().out


def test_processes_share_the_cores_and_get_a_gpu_each(monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(8)))
    monkeypatch.setattr('ldae.ablation.scheduler.num_gpus', lambda: 2)
    for name in ('CUDA_VISIBLE_DEVICES', 'OMP_NUM_THREADS', 'MKL_NUM_THREADS'):
        monkeypatch.delenv(name, raising=False)
    envs = [worker_environment(slot, 4) for slot in range(4)]
    assert [env['CUDA_VISIBLE_DEVICES'] for env in envs] == ['0', '1', '0', '1']
    assert {env['OMP_NUM_THREADS'] for env in envs} == {'2'}
    assert worker_environment(0, 16)['OMP_NUM_THREADS'] == '1'
    monkeypatch.setenv('OMP_NUM_THREADS', '3')
    for env in (worker_environment(0, 4), worker_environment(0, 4, num_threads=1)):
        assert (env['OMP_NUM_THREADS'], env['MKL_NUM_THREADS']) == ('3', '3')


def test_a_killed_process_is_said_to_be_killed(tmp_path):
    log = tmp_path / 'log.txt'
    log.write_text('step 1\n')
    assert last_line(log, -9) == 'killed by signal 9'
    log.write_text('')
    assert last_line(log, 3) == 'exit status 3'
