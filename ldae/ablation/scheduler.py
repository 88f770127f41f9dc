# SPDX-License-Identifier: Apache-2.0
"""Run jobs in processes of their own, some at a time; what fails is kept for the end."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ldae.utils import ConfigError
from ldae.utils.commands import POLL_SECONDS, shared_environment
from ldae.utils.signals import interrupts_later

from .jobs import LOG_FILE, SCORES_FILE, Job
from .results import read_scores

# For the step that a run is in, and its checkpoint.
SECONDS_TO_STOP = 600.0


class Failure(NamedTuple):
    """A row or tokenizer that came to nothing, why, and where the whole story is."""

    name: str
    reason: str
    log: Path


class LocalExecutor:
    """Start jobs as processes of this machine, each with its share of the cores (and a GPU each).

    Args:
        num_parallel: Jobs at a time.
        keep_open: Descriptor of a lock that running processes shall hold too, for what is left of them after a killed parent.
        num_threads: Of each process, unless OMP_NUM_THREADS says so; None gives each its share of the cores.
        shown: Processes write to the terminal instead of their log.
        gpus: Of each job.
    """

    #: Whether a job may be handed over while the one that it comes after is running.
    chains = False

    def __init__(
        self,
        num_parallel: int,
        keep_open: int | None = None,
        num_threads: int | None = None,
        shown: bool = False,
        gpus: int | None = None,
    ) -> None:
        self.num_parallel, self.keep_open, self.num_threads = num_parallel, keep_open, num_threads
        self.shown, self.gpus = shown, gpus

    def start(self, job: Job, slot: int, after: Any = None) -> subprocess.Popen:
        """The process of a job, which has ``slot`` to itself."""
        job.write()
        (job.folder / SCORES_FILE).unlink(missing_ok=True)
        held = () if self.keep_open is None else (self.keep_open,)
        env = worker_environment(slot, self.num_parallel, self.num_threads, job.processes, self.gpus)
        with (job.folder / LOG_FILE).open('w') as log:
            output = None if self.shown else log
            # In a session of its own: Ctrl-C reaches this process only, which then stops the others.
            options = dict(
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, pass_fds=held
            )
            return subprocess.Popen(in_processes(worker_command(job.folder), job.processes), env=env, **options)

    def reason(self, job: Job, process: subprocess.Popen) -> str:
        """Why a job has failed."""
        return last_line(job.folder / LOG_FILE, process.returncode)


class Scheduler:
    """Start jobs in order, at most ``num_parallel`` at a time.

    Args:
        jobs: A job waits for the one it comes ``after``, and fails with it.
        num_parallel: Jobs at a time.
        on_done: Called with a job and its scores.
        executor: What starts them; processes of this machine by default.
    """

    def __init__(
        self, jobs: Sequence[Job], num_parallel: int, on_done: Callable[[Job, list[dict]], None], executor: Any = None
    ) -> None:
        self.waiting, self.num_parallel, self.on_done = list(jobs), num_parallel, on_done
        self.executor = executor or LocalExecutor(num_parallel)
        self.running: dict[int, tuple[Job, Any]] = {}
        self.failed: set[int] = set()
        self.failures: list[Failure] = []

    def run(self) -> list[Failure]:
        """Run all; return what failed. An interrupt stops the processes, whose checkpoints the next run goes on from."""
        try:
            while self.waiting or self.running:
                self._fail_orphans()
                self._start_ready()
                self._collect_finished()
                if self.running:
                    time.sleep(POLL_SECONDS)
        finally:
            self._stop_running()
        return self.failures

    def _fail_orphans(self) -> None:
        for job in [job for job in self.waiting if job.after is not None and id(job.after) in self.failed]:
            self.waiting.remove(job)
            self._fail(job, '', job.folder / LOG_FILE)

    def _start_ready(self) -> None:
        started = {id(job): process for job, process in self.running.values()}
        planned = {id(job) for job in self.waiting} | (set() if self.executor.chains else set(started))
        ready = [job for job in self.waiting if job.after is None or id(job.after) not in planned]
        free = [slot for slot in range(self.num_parallel) if slot not in self.running]
        for slot, job in zip(free, ready, strict=False):
            self.waiting.remove(job)
            with interrupts_later():
                try:
                    self.running[slot] = (job, self.executor.start(job, slot, started.get(id(job.after))))
                except ConfigError as error:
                    self._fail(job, str(error), job.folder / LOG_FILE)

    def _collect_finished(self) -> None:
        for slot, (job, process) in list(self.running.items()):
            if process.poll() is None:
                continue
            del self.running[slot]
            scores = read_scores(job.folder / SCORES_FILE)
            if process.returncode != 0 or (job.members and not scores):
                self._fail(job, self.executor.reason(job, process), job.folder / LOG_FILE)
                continue
            self.on_done(job, [entry for entry in scores if 'error' not in entry])
            for entry in scores:
                if 'error' in entry:
                    name = f'{entry["row"]} seed {job.seed}'
                    self.failures.append(Failure(name, entry['error'], job.folder / LOG_FILE))

    def _fail(self, job: Job, reason: str, log: Path) -> None:
        if job.after is not None and id(job.after) in self.failed:
            reason, log = f'{job.after.name} failed', job.after.folder / LOG_FILE
        self.failed.add(id(job))
        names = [f'{member.row} seed {job.seed}' for member in job.members] or [job.name]
        self.failures += [Failure(name, reason, log) for name in names]

    def _stop_running(self) -> None:
        """Let running processes save after their step; a second interrupt ends them at once."""
        processes = [process for _, process in self.running.values()]
        if processes:
            print('\nStopping after the steps of now, with checkpoints; Ctrl-C once more: at once, without', flush=True)
        try:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(SECONDS_TO_STOP)
        except (KeyboardInterrupt, subprocess.TimeoutExpired):
            for process in processes:
                process.kill()
                process.wait()


def worker_command(folder: Path) -> list[str]:
    """The command of a job's process."""
    return [sys.executable, '-m', 'ldae.ablation.worker', str(folder)]


def in_processes(command: list[str], count: int) -> list[str]:
    """``python -m MODULE ...`` in a group of so many processes on one machine."""
    if count == 1:
        return command
    python, _, *rest = command
    group = [python, '-m', 'ldae.cli.torchrun', '--standalone', f'--nproc-per-node={count}']
    return [*group, '--module', '--', *rest]


def worker_environment(
    slot: int, num_parallel: int, num_threads: int | None = None, processes: int = 1, gpus: int | None = None
) -> dict[str, str]:
    """A process's share of the cores, unless OMP_NUM_THREADS says otherwise, and the GPUs of its job: ``gpus``, or one where
    there are several."""
    env = shared_environment(num_parallel * processes, num_threads)
    if gpus:
        visible = env.get('CUDA_VISIBLE_DEVICES') or ','.join(map(str, range(num_gpus())))
        env['CUDA_VISIBLE_DEVICES'] = ','.join(visible.split(',')[slot * gpus : (slot + 1) * gpus])
    elif num_parallel > 1 and 'CUDA_VISIBLE_DEVICES' not in env and (count := num_gpus()) > 1:
        env['CUDA_VISIBLE_DEVICES'] = str(slot % count)
    return env


def num_gpus() -> int:
    """How many GPUs there are, without making a context on one."""
    import torch

    return torch.cuda.device_count()


def last_line(log: Path, status: int) -> str:
    """Why a process ended: the error it printed last, else how it ended."""
    lines = [line.strip() for line in log.read_text(errors='replace').splitlines() if line.strip()]
    if status < 0:
        return f'killed by signal {-status}'
    errors = [line.removeprefix('error: ') for line in lines if line.startswith('error: ')]
    return (errors or lines or [f'exit status {status}'])[-1]
