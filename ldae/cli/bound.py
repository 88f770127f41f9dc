# SPDX-License-Identifier: Apache-2.0
"""An l-DAE's loss by noise level, beside that of the best linear denoiser."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from .options import add_data_root, add_device, add_ema, add_import, check_arguments, make_parser


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of ``ldae bound``."""
    parser = make_parser(
        'bound',
        "Set an l-DAE's loss on held-out images beside that of the best linear denoiser for the covariance of the training\n"
        'images, in closed form, by noise level: a bound where the data are Gaussian.',
        'tools/bound.py work_dirs/vit-b_pca/epoch_400.pth --data-root data/imagenet --max-train-images 20000',
    )
    add = parser.add_argument
    add('checkpoints', nargs='+', metavar='CHECKPOINT', help='of pre-trainings of l-DAE')
    add('--config', metavar='FILE', help="the checkpoints' config (the one that each holds)")
    add('--data', metavar='CONFIG', help="config whose images are used (the model's own)")
    add_data_root(parser, 'config')
    add('--t', type=int, nargs='+', dest='timesteps', metavar='T', help='time steps (--levels of them)')
    add('--levels', type=int, default=20, metavar='N', help='time steps, as far apart as can be (20)')
    add('--max-train-images', type=int, metavar='N', help='for the covariance (all)')
    add('--max-test-images', type=int, default=2000, metavar='N', help='for the loss (2000)')
    about = 'bound.json, bound.md and bound.png go to DIR/RUN_CHECKPOINT (work_dirs/bound)'
    add('--work-dir', default='work_dirs/bound', metavar='DIR', help=about)
    add('--force', action='store_true', help='replace what exists')
    add_device(parser)
    add_import(parser)
    add_ema(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``ldae bound`` and ``tools/bound.py``."""
    args = parse_args(argv)
    from ldae.apis import bound
    from ldae.utils.checkpoints import check_is_there, names_of_runs
    from ldae.utils.tables import text_table

    check_arguments(args, bound)
    check_is_there(*args.checkpoints)
    options = {name: value for name, value in vars(args).items() if name not in ('checkpoints', 'work_dir', 'imports')}
    names = names_of_runs(Path(checkpoint).absolute().parent for checkpoint in args.checkpoints)
    for checkpoint in map(Path, args.checkpoints):
        folder = Path(args.work_dir) / f'{names[checkpoint.absolute().parent]}_{checkpoint.stem}'
        found = bound(checkpoint, work_dir=folder, **options)
        print(
            f'{checkpoint}: {found.head}, the linear denoiser is {found.scope}\n{text_table(found.table(), left=0)}\n'
        )
        print(f'Wrote {", ".join(path.name for path in found.files)} to {folder}')
