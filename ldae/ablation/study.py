# SPDX-License-Identifier: Apache-2.0
"""One call of ``ablate``, ``compare`` or ``demo``: jobs in a folder, of which those that are done are left out."""

import shutil
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from ldae.launch.batch import share_batch
from ldae.launch.prepare import set_precision
from ldae.utils import check_range, checked, provenance
from ldae.utils.device import choose_precision, use_device
from ldae.utils.locks import claimed
from ldae.utils.ranges import TFLOPS, Executor, Precision

from .clusters import SlurmExecutor, SubmititExecutor, check_machines, parse_options, plan_text
from .jobs import Job, num_members
from .results import ResultsFile
from .scheduler import Failure, LocalExecutor, Scheduler

#: Jobs at a time where the queue is Slurm's.
MOST = 100_000


class Outcome(NamedTuple):
    """Of a study: the rows of its table, what failed, and the folder of each run by its name."""

    rows: Any
    failures: list[Failure]
    folders: dict[str, Path]

    def _repr_html_(self) -> str:
        """Its scores as a table, for notebooks."""
        found = self.rows.values() if isinstance(self.rows, dict) else (row._asdict() for row in self.rows or ())
        cells = [(row.get('label') or row['row'].name, row['knn'], row['linear']) for row in found]
        lines = ''.join('<tr>' + ''.join(f'<td>{escape(str(cell))}</td>' for cell in row) + '</tr>' for row in cells)
        failed = ''.join(f'<li>FAILED {escape(name)}: {escape(reason)}</li>' for name, reason, _ in self.failures)
        return f'<table><tr><th></th><th>k-NN</th><th>linear</th></tr>{lines}</table><ul>{failed}</ul>'


class Study:
    """Runs in a folder, and their results in ``results.jsonl`` there.

    Args:
        root: Folder of all runs; two studies at a time don't share it.
        scale: What the results say of networks and data.
        jobs: Runs at a time: one, or with Slurm as many as there are.
        force: Run again, from the start, what is done.
        num_threads: Of each run, unless OMP_NUM_THREADS says so; None shares the cores.
        watched: Runs write to the terminal instead of their log.
        device, precision: Of each run, as of :class:`ldae.launch.LaunchOptions`; features are computed in float32.
        processes_per_job: That train one run together, on one machine, and share its batch: as many as GPUs.
        gpus_per_job: Of each run: as many as processes.
        executor: Where runs are processes: of this one (``'local'``), on this machine by submitit (``'submitit-local'``), or
            of Slurm.
        partition, slurm: Slurm's; options of sbatch, such as ``'account=vision'``.
        dry_run: Say what would be run, and what it would cost, and leave it.
        tflops: What a GPU is assumed to do for that, in 1e12 floating-point operations a second.
    """

    @checked
    def __init__(
        self,
        root: Path,
        scale: str,
        jobs: int | None = None,
        force: bool = False,
        num_threads: int | None = None,
        watched: bool = False,
        device: str = 'auto',
        precision: Precision | None = None,
        processes_per_job: int | None = None,
        gpus_per_job: int | None = None,
        executor: Executor = 'local',
        partition: str | None = None,
        slurm: Sequence[str] = (),
        dry_run: bool = False,
        tflops: float = TFLOPS,
    ) -> None:
        is_slurm = executor == 'slurm'
        given = dict(jobs=jobs, processes_per_job=processes_per_job, gpus_per_job=gpus_per_job)
        for name, value in given.items():
            if value is not None:
                check_range(f'--{name.replace("_", "-")}', value, 1, kind=int)
        check_range('--tflops', tflops, 1e-3, 1e5)
        self.root, self.scale, self.num_parallel, self.force = root, scale, jobs or (MOST if is_slurm else 1), force
        self.num_threads, self.watched = num_threads, watched
        self.device, self.precision = device, precision
        self.executor, self.dry_run, self.tflops = executor, dry_run, tflops
        # A login node's own device says nothing of the others'.
        self._found = 'cuda' if is_slurm and gpus_per_job else use_device(device)
        self.processes = processes_per_job or gpus_per_job or 1
        self.gpus = gpus_per_job or (self.processes if self._found == 'cuda' and self.processes > 1 else 0)
        self.slurm = partition, parse_options(slurm)
        check_machines(executor, self.gpus, self.processes, self.num_parallel, self._found, self.slurm, dry_run)
        choose_precision(precision or 'auto', self._found)
        self.failures: list[Failure] = []
        self._renewed: set[Path] = set()
        self.results = ResultsFile(root / 'results.jsonl')

    def in_precision(self, cfg: Config) -> Config:
        """A config with the precision of the study, which is part of what its weights depend on."""
        if self.precision is not None:
            set_precision(cfg, self.precision, self._found)
        return cfg

    def run(self, plan: Callable[[], list[Job]], report: Callable[[], Any]) -> Outcome:
        """Run what isn't done of the jobs that ``plan`` makes, and report its rows, also after an interrupt; what failed in
        earlier calls counts too."""
        if self.dry_run:
            jobs = self._without_done(self.prepared(plan))
            print(plan_text(jobs, self.scale, self.gpus, self.tflops, self.executor, self.slurm), flush=True)
            return Outcome([], [], {job.name: job.folder for job in jobs})
        with claimed(self.root) as lock:
            jobs = self.prepared(plan)
            folders, total = {job.name: job.folder for job in jobs}, num_members(jobs)
            if self.force:
                for job in jobs:
                    # Of one with a checkpoint nothing is ours.
                    if job.checkpoint is None and job.folder not in self._renewed:
                        shutil.rmtree(job.folder, ignore_errors=True)
                        self._renewed.add(job.folder)
            else:
                jobs = self._without_done(jobs)
            try:
                failures = self._run_jobs(jobs, total, lock)
            except KeyboardInterrupt:
                print('\nInterrupted: the same command goes on from here.', flush=True)
                raise
            finally:
                rows = report()
        for name, reason, log in failures:
            print(f'FAILED {name}: {reason} ({log})', flush=True)
        self.failures = list(dict.fromkeys(self.failures + failures))
        return Outcome(rows, self.failures, folders)

    def entries(self) -> list[dict]:
        """Results of this layout; that others are there is said."""
        entries = self.results.read()
        kept = [entry for entry in entries if 'protocol' in entry]
        if len(kept) < len(entries):
            count = len(entries) - len(kept)
            print(f'{self.results.path}: {count} results of an older version are left out; their rows are run anew')
        return kept

    def prepared(self, plan: Callable[[], list[Job]]) -> list[Job]:
        """The jobs of a plan, told where to compute and how."""
        jobs = plan()
        for job in jobs:
            job.device, job.precision = self.device, self.precision
            if job.checkpoint is None:
                job.processes = self.processes
                share_batch(deepcopy(job.cfg), self.processes)  # or says that it can't be
        return jobs

    def _without_done(self, jobs: list[Job]) -> list[Job]:
        """Leave out rows that have a result, pre-trainings without rows, and tokenizers that nobody waits for."""
        for job in jobs:
            job.members = [m for m in job.members if not self.results.find(m.row, job.seed, m.config)]
        runs = [job for job in jobs if job.members]
        needed = {id(job.after) for job in runs if job.after is not None}
        tokenizers = [job for job in jobs if id(job) in needed and not job.is_trained]
        return tokenizers + runs

    def _run_jobs(self, jobs: list[Job], total: int, lock: int) -> list[Failure]:
        """Run them, saying what comes out of each and how long the rest will take."""
        todo = num_members(jobs)
        print(
            f'{total} scores at scale {self.scale}: {total - todo} done before, {todo} to do in {len(jobs)} processes, '
            f'{"all" if self.num_parallel == MOST else self.num_parallel} at a time; {self.root}',
            flush=True,
        )
        progress = Progress(sum(job.weight for job in jobs), todo)
        weights = {id(job): job.weight for job in jobs}
        made_with = dict(scale=self.scale, commit=provenance.commit(), versions=provenance.versions())
        if self.processes > 1:
            made_with['processes'] = self.processes

        def on_done(job: Job, scores: list[dict]) -> None:
            for score in scores:
                stamp = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())
                head = dict(row=score['row'], seed=job.seed, config=score['config'], pretraining=job.key)
                device = dict(device=score.pop('device', None) or provenance.device())
                self.results.append(head | score | dict(finished=stamp) | made_with | device)
            print(progress.line(job, scores, weights[id(job)]), flush=True)

        return Scheduler(jobs, min(self.num_parallel, max(1, len(jobs))), on_done, self._made_executor(lock)).run()

    def _made_executor(self, lock: int) -> Any:
        if self.executor == 'local':
            return LocalExecutor(self.num_parallel, lock, self.num_threads, self.watched, self.gpus)
        if self.executor == 'slurm':
            return SlurmExecutor(self.root, self.gpus, *self.slurm)
        return SubmititExecutor(self.root, self.num_parallel, self.num_threads, self.gpus)


def checked_seeds(seeds: Sequence[int]) -> list[int]:
    """Each once, in their order."""
    for seed in seeds:
        check_range('--seeds', seed, 0, 2**31 - 1, kind=int)
    return list(dict.fromkeys(seeds))


class Progress:
    """How far it is, and how long the rest will take at the pace so far."""

    def __init__(self, weight: float, rows: int) -> None:
        self.weight, self.rows = weight, rows
        self.done_weight, self.done_rows = 0.0, 0
        self.start = time.monotonic()

    def line(self, job: Job, scores: Sequence[dict], weight: float) -> str:
        """One line for a job that is done."""
        self.done_weight += weight
        self.done_rows += len(job.members)
        parts = [f'{score["row"]} {score["knn"]:.1f} / {score["linear"]:.1f}' for score in scores]
        elapsed = time.monotonic() - self.start
        left = elapsed * (self.weight / self.done_weight - 1)
        text = f'k-NN / linear: {", ".join(parts)}' if parts else 'trained'
        return (
            f'[{self.done_rows}/{self.rows}] {job.name}: {text}; {minutes(elapsed)} so far, about {minutes(left)} left'
        )


def minutes(seconds: float) -> str:
    """'40 s', '12 min', '3.5 h'."""
    if seconds < 90:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.0f} min' if seconds < 5400 else f'{seconds / 3600:.1f} h'
