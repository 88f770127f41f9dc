# SPDX-License-Identifier: Apache-2.0
"""The demo: l-DAE and MAE pre-trained on the Fashion-MNIST subset that ships with ldae, scored and drawn."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from .options import add_compute_options, make_parser, sigterm_interrupts


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """``--work-dir --epochs --seed --quick``."""
    parser = make_parser(
        'demo',
        'Pre-train l-DAE and MAE on the Fashion-MNIST subset that ships with ldae, then compare what the encoders have '
        'learned: k-NN and linear accuracy. Takes 5 to 8 minutes on one CPU core.',
        'tools/demo.py --work-dir work_dirs/demo',
    )
    add = parser.add_argument
    add('--work-dir', default='work_dirs/demo', metavar='DIR', help='folder for all that is written')
    add('--epochs', type=int, help="of both pre-trainings, at least 2, instead of the configs'")
    add('--seed', type=int, default=0, help='of both pre-trainings and the scores (0)')
    add_compute_options(parser)
    add('--quick', action='store_true', help='a few hundred images and 2 epochs, to see it run')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``ldae demo`` and ``tools/demo.py``."""
    args = parse_args(argv)
    from ldae.ablation import demo
    from ldae.reports import report

    with sigterm_interrupts():
        demo(args.work_dir, args.epochs, args.seed, args.quick, args.device, args.precision)
        page = Path(args.work_dir, 'report.html').resolve()
        report(args.work_dir, page, with_figures=True)
    print(f'All of it on one page: {page.as_uri()}', flush=True)
