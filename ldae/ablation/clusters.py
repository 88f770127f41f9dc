# SPDX-License-Identifier: Apache-2.0
"""Jobs handed to Slurm, or to processes that live on by themselves, through submitit."""

import getpass
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ldae.utils import ConfigError
from ldae.utils.commands import Command
from ldae.utils.errors import nearest
from ldae.utils.files import PACKAGE, write_json
from ldae.utils.optional import import_extra
from ldae.utils.tables import text_table

from .cost import IMAGENET, PUBLISHED_CORES, PUBLISHED_EPOCHS, PUBLISHED_HOURS, estimate, is_published
from .jobs import LOG_FILE, SCORES_FILE, Job, fingerprint, read_json
from .scheduler import POLL_SECONDS, in_processes, last_line, num_gpus, worker_command, worker_environment

# On import, submitit would configure logging, by which Python closes the log files of all others.
os.environ.setdefault('SUBMITIT_LOG_LEVEL', 'NOCONFIG')
SUBMITTED_FILE, FOLDER = 'submitted.json', 'submitit'
#: Minutes that a job has before it is queued anew, and cores a process, unless ``--slurm`` says otherwise.
MINUTES, CORES = 24 * 60, 5
#: Seconds before its time limit that a job is told to save.
SECONDS_TO_SAVE = 120
COMMANDS = ('sbatch', 'srun', 'squeue', 'scancel')
#: Options of sbatch that follow from others here.
OWN = (
    'partition',
    'gpus',
    'gpus-per-node',
    'nodes',
    'ntasks',
    'ntasks-per-node',
    'array',
    'dependency',
    'output',
    'error',
)
OWN += ('signal', 'wrap', 'open-mode', 'chdir', 'job-name', 'requeue', 'no-requeue')
DURATION = re.compile(r'(?:(\d+)-(\d+)(?::(\d+))?(?::(\d+))?|(\d+)|(\d+):(\d+)(?::(\d+))?)')


def parse_options(words: Sequence[str]) -> dict[str, str]:
    """Options of sbatch by name, from words such as ``'qos=long'``."""
    found = {}
    for word in words:
        key, sign, value = str(word).partition('=')
        name = key.strip().lstrip('-').replace('_', '-')
        if not re.fullmatch('[a-z][a-z-]*', name) or not sign or not value:
            raise ConfigError(f'--slurm {word!r} must read KEY=VALUE, for --KEY=VALUE of sbatch, as in account=vision')
        if name in OWN:
            raise ConfigError(
                f'--slurm {name}={value}: a job is one node and one task, and ldae sets this: see --partition, --gpus-per-job, '
                '--processes-per-job'
            )
        if name == 'time':
            minutes_of(value)
        found[name] = value
    return found


def minutes_of(text: str) -> int:
    """Minutes of a time as Slurm writes it: 90, 1:30:00, 2-12."""
    match = DURATION.fullmatch(text)
    if match is None or not re.search('[1-9]', text):
        raise ConfigError(f'--slurm time={text}: give minutes, HH:MM:SS or DAYS-HH:MM:SS')
    days, hours, minutes, seconds, alone, first, second, third = (int(part or 0) for part in match.groups())
    if third or (match[6] and match[8]):
        hours, minutes, seconds = first, second, third
    elif match[6]:
        minutes, seconds = first, second
    return (days * 24 + hours) * 60 + minutes + alone + (seconds > 0)


def sbatch_options(processes: int, partition: str | None, gpus: int, more: dict[str, str]) -> dict[str, Any]:
    """Options of sbatch by name, for a job of so many processes."""
    asked = {'partition': partition} if partition else {}
    asked |= {'time': MINUTES, 'cpus-per-task': CORES * processes} | ({'gpus-per-node': gpus} if gpus else {})
    asked |= {name: True if value in ('true', 'True') else value for name, value in more.items()}
    return dict(asked, time=minutes_of(str(asked['time'])))


def check_machines(
    executor: str, gpus: int, processes: int, jobs: int, device: str, slurm: tuple[str | None, dict], dry_run: bool
) -> None:
    """Raise ConfigError for processes and GPUs that don't go together or aren't there, options of Slurm without it, or what
    it would refuse."""
    partition, options = slurm
    if gpus and gpus != processes:
        raise ConfigError(
            f'--processes-per-job {processes}, --gpus-per-job {gpus}: each process has a GPU of its own: give one of them alone'
        )
    if executor == 'slurm':
        if not dry_run:
            import_extra('submitit', 'slurm', '--executor slurm')
        check_slurm(sbatch_options(processes, partition, gpus, options), not dry_run)
        return
    if partition or options:
        option = f'--partition {partition}' if partition else f'--slurm {next(iter(options))}=...'
        raise ConfigError(f'{option} is for --executor slurm: add that')
    if executor != 'local' and not dry_run:
        import_extra('submitit', 'slurm', f'--executor {executor}')
    cores, found = len(os.sched_getaffinity(0)), num_gpus() if device == 'cuda' else 0
    if gpus and gpus * jobs > found:
        raise ConfigError(
            f'--gpus-per-job {gpus} of {jobs} jobs at a time: {gpus * jobs} GPUs, and this machine has {found} to use'
        )
    if processes > max(cores, found):
        raise ConfigError(f'--processes-per-job {processes}: this machine has {cores} cores')


def check_slurm(options: dict[str, Any], must_be_here: bool = True) -> None:
    """Raise ConfigError, with Slurm's own reason, for what it would refuse; nothing is submitted.

    Args:
        options: Of sbatch.
        must_be_here: Whether Slurm's commands are needed; without, what isn't here checks nothing.
    """
    for name in COMMANDS if must_be_here else ():
        if shutil.which(name) is None:
            raise ConfigError(
                f"--executor slurm: there is no {name} here: start this where Slurm's commands are, or leave out --executor"
            )
    partition = options.get('partition')
    known = _ask('sinfo', '--noheader', '--format=%R').split() if partition else []
    if known and partition not in known:
        raise ConfigError(
            f'--partition {partition}: Slurm has {", ".join(sorted(set(known)))}{nearest(partition, known)}'
        )
    have = _ask('sinfo', '--noheader', '--format=%G', f'--partition={partition}').split() if known else []
    if options.get('gpus-per-node') and have and all('gpu' not in kind for kind in have):
        raise ConfigError(f'--gpus-per-job {options["gpus-per-node"]}: partition {partition} has no GPUs')
    if shutil.which('sbatch'):
        flags = [f'--{name}' if value is True else f'--{name}={value}' for name, value in options.items()]
        found = subprocess.run(['sbatch', '--test-only', *flags, '--wrap=true'], capture_output=True, text=True)
        if found.returncode != 0:
            raise ConfigError(f'Slurm refuses such jobs: {reason_of(found.stderr + found.stdout)}')


def _ask(*command: str) -> str:
    """The output of a command; nothing if it isn't here, or fails."""
    try:
        found = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return ''
    return found.stdout if found.returncode == 0 else ''


def reason_of(text: str) -> str:
    """The last line of what sbatch says."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ['it says nothing']
    return re.sub(r'^(?:\w+: )?(?:error: |allocation failure: )*', '', lines[-1])


class Submitted:
    """A job that was handed over, as the scheduler knows processes. Only the files that it leaves say what came of it."""

    def __init__(self, executor: 'SubmititExecutor', job: Job, number: str) -> None:
        self.executor, self.job, self.number = executor, job, number
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """0 if it has left what it should, 1 if it has ended without; None before."""
        if self.returncode is None and self.number not in self.executor.alive():
            os.listdir(self.job.folder)  # lets a network file system look anew
            self.returncode = 0 if self.job.is_complete else 1
            (self.job.folder / SUBMITTED_FILE).unlink(missing_ok=True)
        return self.returncode

    def terminate(self) -> None:
        """Let it save and stop; leave the queue if it has not begun."""
        self.executor.stop(self.number)

    def kill(self) -> None:
        """End it at once."""
        self.executor.kill(self.number)
        self.returncode = 1

    def wait(self, timeout: float | None = None) -> None:
        """Raises TimeoutExpired as a process's does."""
        start = time.monotonic()
        while self.poll() is None:
            if timeout is not None and time.monotonic() - start > timeout:
                raise subprocess.TimeoutExpired(self.number, timeout)
            time.sleep(POLL_SECONDS)


class SubmititExecutor:
    """Hand jobs to submitit: to processes of this machine, or to :class:`SlurmExecutor`'s.

    A job that an earlier call has handed over, and that still runs, is found again by its number in the job's folder.

    Args:
        root: Folder of the study; submitit's own files go to ``submitit`` in it.
        num_parallel: Jobs at a time, which share the cores of this machine.
        gpus: Of each job.
    """

    name, chains, seconds = 'submitit-local', False, 1.0
    listing = ['ps', '-A', '-o', 'pid=,args=']
    mark = 'submitit.local._local'

    def __init__(self, root: Path, num_parallel: int = 1, num_threads: int | None = None, gpus: int = 0) -> None:
        self.submitit = import_extra('submitit', 'slurm', f'--executor {self.name}')
        self.folder, self.gpus = root.absolute() / FOLDER, gpus
        self.num_parallel, self.num_threads = num_parallel, num_threads
        self._alive: set[str] = set()
        self._asked: float | None = None

    @cached_property
    def _executor(self) -> Any:
        executor = self.submitit.LocalExecutor(self.folder, max_num_timeout=sys.maxsize)
        executor.update_parameters(timeout_min=MINUTES * 365, gpus_per_node=self.gpus, tasks_per_node=1)
        return executor

    def alive(self) -> set[str]:
        """Numbers of jobs that wait or run; those of before while the listing fails."""
        if self._asked is None or time.monotonic() - self._asked > self.seconds:
            found = subprocess.run(self.listing, capture_output=True, text=True)
            if found.returncode == 0:
                lines = [line.split(None, 1) for line in found.stdout.splitlines() if self.mark in line]
                self._alive = {line[0] for line in lines}
            elif self._asked is None:
                raise ConfigError(f'{self.listing[0]} fails: {reason_of(found.stderr)}')
            self._asked = time.monotonic()
        return self._alive

    def start(self, job: Job, slot: int, after: Submitted | None = None) -> Submitted:
        """Hand a job over, or find it again. Raises ConfigError if it is refused, or runs already with other settings."""
        known = read_json(job.folder / SUBMITTED_FILE, number=str, executor=str, job=str)
        if known.get('executor') == self.name:
            is_alive = known['number'] in self.alive()
            if known['job'] == fingerprint(job.content) and (is_alive or job.is_complete):
                return Submitted(self, job, known['number'])
            if is_alive:
                raise ConfigError(
                    f'{self.name} job {known["number"]} is at it with other settings: wait for it, or end it'
                )
            (job.folder / '.lock').unlink(missing_ok=True)  # of a job that has ended, perhaps on another machine
        job.write()
        for name in (SCORES_FILE, LOG_FILE):
            (job.folder / name).unlink(missing_ok=True)
        command = in_processes(worker_command(job.folder.absolute()), job.processes)
        command = Command(
            command, job.folder.absolute() / LOG_FILE, self.num_parallel * job.processes, self.num_threads
        )
        # Where ldae is a clone that isn't installed, the job finds it by this.
        with self.submitit.helpers.environment_variables(PYTHONPATH=worker_environment(0, 1)['PYTHONPATH']):
            number = self._submit(job, command, after)
        write_json(job.folder / SUBMITTED_FILE, dict(executor=self.name, number=number, job=fingerprint(job.content)))
        self._alive.add(number)
        self._asked = time.monotonic()
        return Submitted(self, job, number)

    def _submit(self, job: Job, command: Command, after: Submitted | None) -> str:
        return self._executor.submit(command).job_id

    def reason(self, job: Job, process: Submitted) -> str:
        """Why a job has failed: its log's line, else that of submitit's."""
        logs = [job.folder / LOG_FILE, self.folder / f'{process.number}_0_log.err']
        log = next((log for log in logs if log.is_file() and log.stat().st_size), None)
        return f'ended without a word as job {process.number}' if log is None else last_line(log, 1)

    def stop(self, number: str) -> None:
        """Let a job save and end."""
        os.kill(int(number), signal.SIGTERM)

    def kill(self, number: str) -> None:
        """End a job at once."""
        os.kill(int(number), signal.SIGINT)


class SlurmExecutor(SubmititExecutor):
    """The same of Slurm; a job that comes after another is handed over with it, and waits in the queue.

    Args:
        partition: None is Slurm's default.
        options: Of sbatch, by name.
    """

    name, chains, seconds, mark = 'slurm', True, 20.0, ''

    def __init__(self, root: Path, gpus: int = 0, partition: str | None = None, options: dict | None = None) -> None:
        super().__init__(root, gpus=gpus)
        self.partition, self.options = partition, options or {}
        self.listing = ['squeue', '--noheader', '--format=%A', f'--user={getpass.getuser()}']

    @cached_property
    def _executor(self) -> Any:
        return self.submitit.SlurmExecutor(self.folder, max_num_timeout=sys.maxsize)

    def _submit(self, job: Job, command: Command, after: Submitted | None) -> str:
        options = sbatch_options(job.processes, self.partition, self.gpus, self.options)
        minutes = options.pop('time')
        waits = {} if after is None else {'dependency': f'afterok:{after.number}', 'kill-on-invalid-dep': 'yes'}
        path = shlex.quote(os.pathsep.join([str(PACKAGE.parent), *filter(None, [os.environ.get('PYTHONPATH')])]))
        self._executor.update_parameters(
            time=minutes,
            job_name='ldae ' + job.name,
            signal_delay_s=SECONDS_TO_SAVE,
            additional_parameters=options | waits,
            # srun no longer takes the cores of sbatch by itself.
            setup=[f'export PYTHONPATH={path}', 'export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK'],
        )
        try:
            return self._executor.submit(command).job_id
        except (RuntimeError, OSError) as error:
            raise ConfigError(f'sbatch: {reason_of(str(error))}') from error

    def reason(self, job: Job, process: Submitted) -> str:
        """The same, else what Slurm says has become of it."""
        states = _ask('sacct', '--noheader', '--parsable2', '--format=State', f'--jobs={process.number}').split('\n')
        state = states[0].strip()
        found = super().reason(job, process)
        return (
            found if state in ('', 'FAILED', 'COMPLETED') else f'{state} of Slurm job {process.number}; last: {found}'
        )

    def stop(self, number: str) -> None:
        """Leave the queue if it waits; else let it save and end."""
        for how in ('--state=PENDING', '--signal=TERM'):
            subprocess.run(['scancel', how, number], capture_output=True)

    def kill(self, number: str) -> None:
        """End a job at once."""
        subprocess.run(['scancel', number], capture_output=True)


def plan_text(
    jobs: Sequence[Job], scale: str, gpus: int, tflops: float, executor: str, slurm: tuple[str | None, dict]
) -> str:
    """Jobs in their order, and the GPU-hours of its training beside the published ones."""
    header = ['job', 'waits for', 'scores', 'images seen', 'GFLOP an image', 'hours', 'GPU-hours', 'published']
    cells, total, notes, published = [header], 0.0, {}, f'{PUBLISHED_HOURS * PUBLISHED_CORES:,} TPU v3 core-hours'
    for job in jobs:
        is_trained = job.is_trained or job.checkpoint is not None
        found = None if is_trained else estimate(job.cfg)
        hours = found and found.gflop is not None and found.images * found.gflop / (tflops * 1e3 * 3600)
        total += hours or 0.0
        if found and not found.is_here:
            root = job.cfg.train_dataloader.dataset.get('data_root')
            notes[f'{root} cannot be read here: {IMAGENET:,} training images are assumed, those of ImageNet-1k.'] = None
        if found and found.gflop is None:
            notes[f'{job.name} is not counted: {found.why}'] = None
        cost = [f'{found.images:,}', f'{found.gflop:,.1f}' if hours else '?'] if found else ['trained', '']
        cost += [_figure(hours / job.processes), _figure(hours)] if hours else ['?' if found else '0'] * 2
        after = job.after.name if job.after in jobs else ''
        cells.append([job.name, after, str(len(job.members)), *cost, published if is_published(job.cfg) else '-'])
    processes = jobs[0].processes if jobs else 1
    lines = [
        f'Dry run at scale {scale}: {len(jobs)} jobs, {processes} processes and {gpus or "no"} GPUs each; nothing is started.',
        *([text_table(cells, left=2)] if jobs else []),
        f'In all {_figure(total)} GPU-hours of training, if a GPU does {tflops:g} TFLOP/s: that is assumed (--tflops), not measured. '
        'Reading, scoring and waiting are not in it.',
        *notes,
    ]
    if any(is_published(job.cfg) for job in jobs):
        lines.append(
            f"Published: {PUBLISHED_HOURS} hours on {PUBLISHED_CORES} TPU v3 cores, for 12 + 12 blocks of a ViT-L's width in "
            f'{PUBLISHED_EPOCHS} epochs; of other rows the paper gives no cost.'
        )
    for job in jobs[:1]:
        asked = sbatch_options(processes, slurm[0], gpus, slurm[1])
        flags = [f'--{name}' if value is True else f'--{name}={value}' for name, value in asked.items()]
        command = shlex.join(in_processes(worker_command(job.folder), processes))
        lines.append(f'Each as: {shlex.join(["sbatch", *flags]) + ": " if executor == "slurm" else ""}{command}')
    return '\n'.join(lines)


def _figure(value: float) -> str:
    return f'{value:,.0f}' if value >= 10 else f'{value:.2g}'
