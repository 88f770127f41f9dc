# SPDX-License-Identifier: Apache-2.0
"""l-DAE beside MAE, untrained encoders, latents and pixels, over seeds, in one table."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from .options import add_import, add_study_options, make_parser, run_study, study_options


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Configs, checkpoints, and what :func:`add_study_options` adds."""
    parser = make_parser(
        'compare',
        'Pre-train l-DAE and MAE with several seeds, or take checkpoints, and score both encoders, the same untrained,\n'
        "l-DAE's latents and the pixels by k-NN and a linear layer: one table, mean and spread. Finished runs are\n"
        'skipped, interrupted ones resumed. With the configs of the demo, about 20 minutes of one CPU core.',
        'tools/compare.py --seeds 0 1 2 --work-dir work_dirs/compare\n'
        '  ldae compare --ldae mine.py --data-root photos --seeds 0\n'
        '  ldae compare --scale cifar10 --data-root data/cifar10',
    )
    add = parser.add_argument
    add('--ldae', metavar='CONFIG', help="pre-training config (that of the checkpoints, or the demo's)")
    add('--mae', metavar='CONFIG', help="the same of MAE (the checkpoints', the demo's, or one like --ldae)")
    for name in ('ldae', 'mae'):
        add(f'--{name}-checkpoints', nargs='+', type=Path, metavar='FILE', help='trained before, one a seed')
    add_import(parser)
    add('--scale', metavar='NAME', help='bring both configs, ViT-B by default, to a scale, as tools/train.py does')
    add('--no-pixels', action='store_true', help='leave the raw pixels out')
    add_study_options(parser, [0, 1, 2], 'work_dirs/compare', '{ldae,mae}/seedN')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``ldae compare`` and ``tools/compare.py``: 1 if a run has failed, 130 after an interrupt."""
    args = parse_args(argv)
    from ldae.ablation import compare

    mine = {name: getattr(args, name) for name in ('ldae', 'mae', 'ldae_checkpoints', 'mae_checkpoints')}
    return run_study(compare, **mine, pixels=not args.no_pixels, **study_options(args, 'compare', argv))
