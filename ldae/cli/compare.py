# SPDX-License-Identifier: Apache-2.0
"""l-DAE beside MAE, untrained encoders, latents and pixels, over seeds, in one table."""

import argparse
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from .ablate import Ablation, interrupt, shown_command
from .demo import LDAE_CONFIG, MAE_CONFIG
from .options import make_parser


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """``--ldae --mae --ldae-checkpoints --mae-checkpoints --seeds --jobs --work-dir --force --quick``."""
    parser = make_parser(
        'compare',
        'Pre-train l-DAE and MAE with several seeds, or take checkpoints, and score both encoders, the same untrained,\n'
        "l-DAE's latents and the pixels by k-NN and a linear layer: one table, mean and spread. Finished runs are\n"
        'skipped, interrupted ones resumed. With the configs of the demo, about 20 minutes of one CPU core.',
        'tools/compare.py --seeds 0 1 2 --work-dir work_dirs/compare',
    )
    for name, default in (('ldae', LDAE_CONFIG), ('mae', MAE_CONFIG)):
        parser.add_argument(
            f'--{name}', default=default, metavar='CONFIG', help=f'pre-training config ({default})'
        )
        parser.add_argument(
            f'--{name}-checkpoints', nargs='+', type=Path, metavar='FILE', help='trained before, one a seed'
        )
    parser.add_argument(
        '--scale', metavar='NAME', help='bring both configs to a scale, as tools/train.py does'
    )
    parser.add_argument('--data-root', metavar='DIR', help="folder of the data, instead of the configs'")
    parser.add_argument(
        '--seeds', type=int, nargs='+', default=[0, 1, 2], metavar='N', help='one run each (0 1 2)'
    )
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='runs at a time (1)')
    parser.add_argument(
        '--work-dir', default='work_dirs/compare', metavar='DIR', help='folder for all that is written'
    )
    parser.add_argument('--force', action='store_true', help='run finished runs again, from the start')
    parser.add_argument(
        '--quick', action='store_true', help='a few hundred images and 2 epochs, to see it run'
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``ldae compare`` and ``tools/compare.py``: 1 if a run has failed, 130 after an interrupt."""
    args = parse_args(argv)
    command = shown_command(sys.argv[1:] if argv is None else argv, 'compare')
    from ldae.utils import check_range

    check_range('--jobs', args.jobs, 1, kind=int)
    for seed in args.seeds:
        check_range('--seeds', seed, 0, 2**31 - 1, kind=int)
    args.seeds = list(dict.fromkeys(args.seeds))
    signal.signal(signal.SIGTERM, interrupt)
    return Comparison(args, command).run()


class Comparison(Ablation):
    """One call of the tool: an ablation with other rows and another table."""

    def __init__(self, args: argparse.Namespace, command: str) -> None:
        from ldae.ablation import ResultsFile
        from ldae.ablation.comparison import ENTRIES, check_checkpoints

        self.args, self.command, self.rows = args, command, list(ENTRIES)
        self.scale = (args.scale or 'the configs') + ('-quick' if args.quick else '')
        self.root = Path(args.work_dir)
        self.results = ResultsFile(self.root / 'results.jsonl')
        self.checkpoints = dict(ldae=args.ldae_checkpoints, mae=args.mae_checkpoints)
        for name, files in self.checkpoints.items():
            check_checkpoints(f'--{name}-checkpoints', files, args.seeds)
        self.hashes: dict[str, set[str]] = {}

    def plan(self) -> list:
        """The jobs that are not done."""
        from ldae.ablation.comparison import plan_comparison

        configs = {name: self.load(getattr(self.args, name)) for name in ('ldae', 'mae')}
        jobs = plan_comparison(configs, self.args.seeds, self.root, self.checkpoints, self.args.quick)
        for member in (member for job in jobs for member in job.members):
            self.hashes.setdefault(member.row, set()).add(member.config)
        if self.args.force:
            for job in jobs:
                self.forget(job)
            return jobs
        return self.without_done(jobs)

    def load(self, name: str):
        """A config as the options want it."""
        from ldae.config import load_config, set_data_root

        cfg = load_config(name, scale=self.args.scale)
        if self.args.data_root is not None:
            set_data_root(cfg, self.args.data_root)
        return cfg

    def forget(self, job) -> None:
        """Delete a run of ours; one that only names a checkpoint has nothing to delete."""
        if self.checkpoints[job.name.split()[0]] is None:
            shutil.rmtree(job.folder, ignore_errors=True)

    def report(self) -> None:
        """Write table, figures and picture of what there is of these configs and seeds, and print the table."""
        from ldae.ablation.comparison import comparison_table, summarise_comparison, write_comparison

        entries = [entry for entry in self.results.read() if entry['seed'] in self.args.seeds]
        rows = summarise_comparison(entries, self.hashes)
        if not rows:
            return
        configs = dict(ldae=self.args.ldae, mae=self.args.mae)
        written = write_comparison(self.root, rows, self.command, configs)
        print(f'\n{comparison_table(rows)}\n')
        print(f'Wrote {", ".join(path.name for path in written)} to {self.root}', flush=True)
