# SPDX-License-Identifier: Apache-2.0
"""Methods of pre-training side by side, with untrained encoders, latents and pixels, over seeds, in one table."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from .options import add_import, add_study_options, check_arguments, make_parser, run_study, study_options


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Methods, and what :func:`add_study_options` adds."""
    parser = make_parser(
        'compare',
        'Pre-train by several methods with several seeds, or take checkpoints, and score each encoder, the same untrained,\n'
        "l-DAE's latents and the pixels by k-NN and a linear layer: one table, mean and spread. Finished runs are\n"
        'skipped, interrupted ones resumed. l-DAE and MAE of the demo by default: 20 to 30 minutes of one CPU core.',
        'tools/compare.py --seeds 0 1 2 --work-dir work_dirs/compare\n'
        '  ldae compare --method ldae mae mocov3 --data-root photos --scale auto --budget 10m\n'
        '  ldae compare --method ldae=mine.py mae theirs=mae_pretrain_vit_base.pth --data-root photos --seeds 0\n'
        '  ldae compare --scale cifar10 --data-root data/cifar10 --rates 0.5 1 2',
    )
    add = parser.add_argument
    about = (
        'ldae, mae, mocov3, simclr, byol, simmim or dino, of the size and on the images of the first config; or NAME=CONFIG; or '
        'NAME=CHECKPOINT[,CHECKPOINT...], for the first seeds; or NAME=ENCODER of timm::, transformers::, mmpretrain::, a file or '
        'a folder (ldae mae)'
    )
    add('--method', nargs='+', action='extend', type=_method, metavar='NAME[=SOURCE]', help=about)
    for name in ('ldae', 'mae'):
        add(f'--{name}', metavar='CONFIG', help=f'--method {name}=CONFIG')
        add(f'--{name}-checkpoints', nargs='+', type=Path, metavar='FILE', help='trained by it before, one a seed')
    add_import(parser)
    about = "bring all configs, ViT-B by default, to a scale, as tools/train.py does; 'auto' chooses one for --data-root and --budget; paper is theirs, with its batch"
    add('--scale', metavar='NAME', help=about)
    add('--budget', metavar='TIME', help='time for an l-DAE with --scale auto: 90s, 30m, 2h (30m)')
    about = 'factors of the learning rates of all pre-trainings, to choose from at the first seed on held-out training images (1)'
    add('--rates', type=float, nargs='+', default=[1.0], metavar='X', help=about)
    about = 'mean of patch tokens, class token: the best on held-out training images is taken of those that an encoder has (both)'
    add('--poolings', nargs='+', default=['mean', 'cls'], metavar='NAME', help=about)
    about = 'attentive probes of the patch tokens, too: aim, efficient (none)'
    add('--attentive', nargs='+', default=[], metavar='KIND', help=about)
    add('--no-pixels', action='store_true', help='leave the raw pixels out')
    add_study_options(parser, [0, 1, 2], 'work_dirs/compare', 'NAME/seedN')
    return parser.parse_args(argv)


def _method(word: str) -> tuple[str, str | list[str] | None]:
    name, _, source = word.partition('=')
    parts = source.split(',')
    return name, parts if len(parts) > 1 else source or None


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``ldae compare`` and ``tools/compare.py``: 1 if a run has failed, 130 after an interrupt."""
    args = parse_args(argv)
    from dataclasses import replace

    from ldae.ablation import Scoring, compare
    from ldae.ablation.comparison import scale_for
    from ldae.utils import ConfigError

    if len(dict(args.method or ())) < len(args.method or ()):
        raise ConfigError('--method: each method needs a name of its own, as in NAME=CONFIG')
    args.poolings, args.attentive = tuple(args.poolings), tuple(args.attentive)
    check_arguments(args, Scoring.__init__, 'poolings', 'attentive')
    options = study_options(args, 'compare', argv)
    options['scoring'] = replace(options['scoring'], poolings=args.poolings, attentive=args.attentive)
    options['scale'] = scale_for(args.scale, args.budget, args.data_root, args.work_dir, args.device)
    mine = {name: getattr(args, name) for name in ('ldae', 'mae', 'ldae_checkpoints', 'mae_checkpoints')}
    mine |= dict(methods=args.method and dict(args.method), rates=args.rates, pixels=not args.no_pixels)
    return run_study(compare, **mine, **options)
