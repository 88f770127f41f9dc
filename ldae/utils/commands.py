# SPDX-License-Identifier: Apache-2.0
"""Commands with a share of the cores, and one that submitit calls; loads nothing large, which each job would do anew."""

import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

from .files import PACKAGE
from .optional import import_extra
from .signals import PARENT_VARIABLE

POLL_SECONDS = 0.1


def shared_environment(shares: int, num_threads: int | None = None) -> dict[str, str]:
    """For a process that has one of so many shares of the cores, unless OMP_NUM_THREADS or ``num_threads`` says otherwise, finds
    this ldae and ends with this process."""
    env = dict(os.environ)
    threads = str(num_threads or max(1, len(os.sched_getaffinity(0)) // shares))
    env['OMP_NUM_THREADS'] = env.get('OMP_NUM_THREADS') or threads
    env.setdefault('MKL_NUM_THREADS', env['OMP_NUM_THREADS'])
    env.update({'PYTHONUNBUFFERED': '1', PARENT_VARIABLE: str(os.getpid())})
    env['PYTHONPATH'] = os.pathsep.join(filter(None, [str(PACKAGE.parent), env.get('PYTHONPATH')]))
    return env


class Command:
    """A job's command line as submitit calls it; before its time limit, or when it is preempted, the job saves and is queued anew.

    The process has a session of its own, and doesn't hear the signal that submitit answers; it is sent SIGTERM instead."""

    def __init__(self, command: list[str], log: Path, shares: int = 1, num_threads: int | None = None) -> None:
        self.command, self.log, self.cwd = command, str(log), os.getcwd()
        self.shares = shares, num_threads
        self.process: subprocess.Popen | None = None

    def __call__(self) -> None:
        signals = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        with Path(self.log).open('a') as log:
            options = dict(stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
            deaf = partial(signal.signal, signal.SIGUSR2, signal.SIG_IGN)
            options |= dict(cwd=self.cwd, env=shared_environment(*self.shares), preexec_fn=deaf)
            self.process = subprocess.Popen(self.command, **options)
        status = self._wait()
        for number, handler in signals.items():
            signal.signal(number, handler)
        if status != 0:
            raise RuntimeError(f'exit status {status}: see {self.log}')

    def _stop(self, *_: Any) -> None:
        if self.process is not None:
            self.process.terminate()

    def _wait(self) -> int:
        while self.process.poll() is None:  # Popen.wait holds a lock, which a signal's handler would wait for
            time.sleep(POLL_SECONDS)
        return self.process.returncode

    def checkpoint(self) -> Any:
        """Stop with a checkpoint; what submitit queues anew."""
        self._stop()
        if self.process is not None:
            self._wait()
        self.process = None
        return import_extra('submitit', 'slurm', '--executor').helpers.DelayedSubmission(self)
