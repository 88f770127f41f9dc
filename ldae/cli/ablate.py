# SPDX-License-Identifier: Apache-2.0
"""Run rows of the paper's tables at a small scale, probe them, and put them beside the paper's figures."""

import argparse
import fcntl
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from mmengine.config import DictAction

from .options import make_parser

FAILED, INTERRUPTED = 1, 130


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """``ROWS... --scale --seeds --jobs --work-dir --force --quick``."""
    parser = make_parser(
        'ablate',
        "Pre-train rows of the paper's tables at a small scale, probe each by k-NN and a linear layer, and write "
        "results.jsonl and table.md, with the paper's figures beside ours. Finished runs are skipped, interrupted ones "
        'resumed, and a row that fails is named at the end.',
        'tools/ablate.py table3 t2_pca_* f5_pixel_256 --scale fashion-mnist_subset --seeds 0 1 2 --jobs 2',
    )
    parser.add_argument(
        'rows',
        nargs='+',
        metavar='ROW',
        help='names in configs/deconstruction, globs, or tables as in table3',
    )
    parser.add_argument('--scale', required=True, metavar='NAME', help='a name in configs/scales, or a file')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], metavar='N', help='one run each (0)')
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='runs at a time (1)')
    parser.add_argument(
        '--work-dir', default='work_dirs/ablation', metavar='DIR', help='runs go to DIR/SCALE/ROW/seedN'
    )
    parser.add_argument('--data-root', metavar='DIR', help="folder of the data, instead of the scale's")
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of all rows',
    )
    parser.add_argument('--force', action='store_true', help='run finished rows again, from the start')
    parser.add_argument(
        '--quick', action='store_true', help='a few hundred images and 2 epochs, to see it run'
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``ldae ablate`` and ``tools/ablate.py``: 1 if a row has failed, 130 after an interrupt."""
    args = parse_args(argv)
    command = shown_command(sys.argv[1:] if argv is None else argv)
    from ldae.utils import check_range

    check_range('--jobs', args.jobs, 1, kind=int)
    for seed in args.seeds:
        check_range('--seeds', seed, 0, 2**31 - 1, kind=int)
    args.seeds = list(dict.fromkeys(args.seeds))
    signal.signal(signal.SIGTERM, interrupt)
    return Ablation(args, command).run()


def shown_command(argv: Sequence[str], tool: str = 'ablate') -> str:
    """The command for the report, without the folder it wrote to, which is nobody else's."""
    shown, skip = [], False
    for word in argv:
        if not skip and word.partition('=')[0] != '--work-dir':
            shown.append(word)
        skip = word == '--work-dir'
    return shlex.join([f'tools/{tool}.py', *shown])


def interrupt(*_) -> None:
    """Handle SIGTERM as Ctrl-C."""
    raise KeyboardInterrupt


class Ablation:
    """One call of the tool."""

    def __init__(self, args: argparse.Namespace, command: str) -> None:
        from ldae.ablation import ResultsFile, select_rows
        from ldae.config.rows import list_rows
        from ldae.config.scale import find_scale

        self.args, self.command = args, command
        self.all_rows = list_rows()
        self.rows = select_rows(args.rows, self.all_rows)
        self.scale = find_scale(args.scale).stem + ('-quick' if args.quick else '')
        self.root = Path(args.work_dir) / self.scale
        self.results = ResultsFile(self.root / 'results.jsonl')

    def run(self) -> int:
        """Plan, run what isn't done, report."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / '.lock').open('ab') as lock:
            self.claim(lock)
            jobs = self.plan()
            try:
                failures = self.run_jobs(jobs, lock)
            except KeyboardInterrupt:
                print('\nInterrupted: the same command goes on from here.', flush=True)
                return INTERRUPTED
            finally:
                self.report()
        for name, reason, log in failures:
            print(f'FAILED {name}: {reason} ({log})', flush=True)
        return FAILED if failures else 0

    def claim(self, lock: BinaryIO) -> None:
        """Have the folder to ourselves; the lock falls with the last process that holds the file."""
        from ldae.utils import ConfigError

        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f'{self.root} is in use by another run of this tool or what it left running: wait for it, or take another '
                '--work-dir'
            ) from error

    def plan(self) -> list:
        """The jobs that are not done."""
        from ldae.ablation import plan_jobs
        from ldae.config import load_config, set_data_root

        def load(path: Path):
            cfg = load_config(path, self.args.cfg_options, self.args.scale)
            if self.args.data_root is not None:
                set_data_root(cfg, self.args.data_root)
            return cfg

        jobs = plan_jobs(self.rows, self.args.seeds, self.root, load, self.args.quick)
        if self.args.force:
            for job in jobs:
                shutil.rmtree(job.folder, ignore_errors=True)
            return jobs
        return self.without_done(jobs)

    def without_done(self, jobs: list) -> list:
        """Leave out rows that have a result, pre-trainings without rows, and tokenizers that nobody waits for."""
        from ldae.ablation.jobs import DONE_FILE

        for job in jobs:
            job.members = [m for m in job.members if not self.results.find(m.row, job.seed, m.config)]
        runs = [job for job in jobs if job.members]
        needed = {id(job.after) for job in runs if job.after is not None}
        tokenizers = [job for job in jobs if id(job) in needed and not (job.folder / DONE_FILE).is_file()]
        return tokenizers + runs

    def run_jobs(self, jobs: list, lock: BinaryIO) -> list:
        """Run them, saying what comes out of each and how long the rest will take."""
        from ldae.ablation import Scheduler
        from ldae.ablation.jobs import rows_of

        total, todo = len(self.rows) * len(self.args.seeds), rows_of(jobs)
        print(
            f'{len(self.rows)} rows x {len(self.args.seeds)} seeds at scale {self.scale}: {total - todo} done before, '
            f'{todo} to do in {len(jobs)} processes, {self.args.jobs} at a time; {self.root}',
            flush=True,
        )
        self.progress = Progress(sum(job.weight for job in jobs), todo)
        weights = {id(job): job.weight for job in jobs}
        self.made_with = self.provenance()

        def on_done(job, scores: list[dict]) -> None:
            self.keep(job, scores)
            print(self.progress.line(job, scores, weights[id(job)]), flush=True)

        return Scheduler(jobs, self.args.jobs, on_done, lock).run()

    def provenance(self) -> dict:
        """What all results of this call are made with."""
        from ldae.utils import provenance

        return dict(
            scale=self.scale,
            commit=provenance.commit(),
            versions=provenance.versions(),
            device=provenance.device(),
        )

    def keep(self, job, scores: list[dict]) -> None:
        """Append the scores of a job to the results."""
        for score in scores:
            stamp = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())
            head = dict(row=score['row'], seed=job.seed, config=score['config'], pretraining=job.key)
            self.results.append(head | score | dict(probe=job.probe, finished=stamp) | self.made_with)

    def report(self) -> None:
        """Write table and pictures of all results in the folder, those of earlier calls too, and print the table."""
        from ldae.ablation import summarise, write_report

        summaries = summarise(self.all_rows, self.results.read())
        if not summaries:
            return
        written = write_report(self.root, summaries, self.scale, self.command)
        chosen = {row.name for row in self.rows}
        print('\n' + text_table([s for s in summaries if s.row.name in chosen]))
        print(f'\nWrote {", ".join(path.name for path in written)} to {self.root}', flush=True)


class Progress:
    """How far it is, and how long the rest will take at the pace so far."""

    def __init__(self, weight: float, rows: int) -> None:
        self.weight, self.rows = weight, rows
        self.done_weight, self.done_rows = 0.0, 0
        self.start = time.monotonic()

    def line(self, job, scores: list[dict], weight: float) -> str:
        """One line for a job that is done."""
        self.done_weight += weight
        self.done_rows += len(job.members)
        parts = [f'{score["row"]} {score["knn"]:.1f} / {score["linear"]:.1f}' for score in scores]
        elapsed = time.monotonic() - self.start
        left = elapsed * (self.weight / self.done_weight - 1)
        text = f'20-NN / linear: {", ".join(parts)}' if parts else 'trained'
        return f'[{self.done_rows}/{self.rows}] {job.name}: {text}; {minutes(elapsed)} so far, about {minutes(left)} left'


def minutes(seconds: float) -> str:
    """'40 s', '12 min', '3.5 h'."""
    if seconds < 90:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.0f} min' if seconds < 5400 else f'{seconds / 3600:.1f} h'


def text_table(summaries: Sequence) -> str:
    """The rows of this call, for the terminal."""
    width = max([len(summary.row.name) for summary in summaries] + [3]) + 2
    lines = [f'{"row":<{width}}{"20-NN":>12}{"linear":>12}{"seeds":>7}{"paper (ImageNet)":>18}']
    for row, knn, linear, seeds, _ in summaries:
        paper = '-' if row.paper_linear is None else f'{row.paper_linear:.1f}'
        lines.append(f'{row.name:<{width}}{knn!s:>12}{linear!s:>12}{len(seeds):>7}{paper:>18}')
    return '\n'.join(lines)
