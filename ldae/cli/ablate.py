# SPDX-License-Identifier: Apache-2.0
"""Run rows of the paper's tables at a small scale or the paper's, score them, and put them beside the paper's figures."""

import argparse
from collections.abc import Sequence
from dataclasses import replace

from ldae.utils import ConfigError

from .options import SAMPLERS, add_study_options, check_arguments, make_parser, run_study, study_options


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Rows, scale, and what :func:`add_study_options` adds."""
    parser = make_parser(
        'ablate',
        "Pre-train rows of the paper's tables at a small scale or the paper's, score each by k-NN and a linear layer, and write "
        "results.jsonl and table.md, with the paper's figures beside ours. Finished runs are skipped, interrupted ones "
        'resumed, and a row that fails is named at the end.',
        'tools/ablate.py table3 t2_pca_* f5_pixel_256 --scale fashion-mnist_subset --seeds 0 1 2 --jobs 2',
    )
    add = parser.add_argument
    add('rows', nargs='+', metavar='ROW', help='names of rows (docs/rows.md), globs, or tables: table3, after-paper')
    add('--scale', required=True, metavar='NAME', help="a name in configs/scales, a file, or paper: the paper's own")
    add_study_options(parser, [0], 'work_dirs/ablation', 'SCALE/ROW/seedN')
    add('--input', nargs='+', dest='inputs', choices=['clean', 'noisy'], help='likewise as --timesteps (clean)')
    about = "what becomes of the paper's 400, instead of the scale's"
    add('--epochs', dest='length', type=int, metavar='N', help=about)
    group = parser.add_argument_group(
        'samples', 'A second figure: Fréchet distance of samples to the training images, FID if --inception is given.'
    )
    add = group.add_argument
    add('--samples', dest='num', type=int, metavar='N', help='so many a row, of which the distance depends (none)')
    add('--steps', type=int, metavar='N', help='of their sampling (50)')
    add('--sampler', choices=SAMPLERS, help="one of diffusers' samplers (dpm++)")
    about = 'network that compares images: a checkpoint that holds its config, timm::NAME, or mmpretrain::NAME'
    add('--features', metavar='MODEL', help=about)
    add('--weights', metavar='FILE', help='of that network (what timm or mmpretrain downloads)')
    add('--inception', metavar='FILE', help='pt_inception-2015-12-05-6726825d.pth, in place of --features')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``ldae ablate`` and ``tools/ablate.py``: 1 if a row has failed, 130 after an interrupt."""
    args = parse_args(argv)
    from ldae.ablation import Sampling, ablate

    options = study_options(args, 'ablate', argv) | dict(epochs=args.length, inputs=args.inputs)
    names = ('num', 'steps', 'sampler', 'features', 'weights', 'inception')
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    if given and args.num is None:
        raise ConfigError(f'--{next(iter(given))} is of samples, and none are asked for: add --samples N')
    if given:
        check_arguments(args, Sampling.__init__, 'steps')
        options['scoring'] = replace(options['scoring'], sampling=Sampling(**given))
    return run_study(ablate, args.rows, **options)
