# SPDX-License-Identifier: Apache-2.0
"""Score an encoder's patch features by linear segmentation."""

import argparse
from collections.abc import Sequence

from . import options as shared


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of ``ldae segment``."""
    parser = shared.make_parser(
        'segment',
        'Score an encoder by a linear layer on each patch that predicts the class of each pixel. DIR holds\n'
        'images/train, images/val, masks/train and masks/val; masks are PNGs of class numbers, named as their images.',
        'tools/segment.py work_dirs/vit-b_pca/epoch_400.pth --data-root data/mine --ignore 255',
    )
    add = parser.add_argument
    add('checkpoint', nargs='?', help='of l-DAE, MAE, or trained elsewhere; as of ldae probe')
    about = 'a config, a name of ldae.list_models(), timm::NAME or mmpretrain::NAME (the config in the checkpoint)'
    add('--config', '--model', metavar='MODEL', help=about)
    add('--pretrained', action='store_true', help='download the weights that timm or mmpretrain has')
    shared.add_cfg_options(parser, 'override settings of the config')
    add('--data-root', metavar='DIR', help='folder of images/ and masks/, each with train/ and val/')
    add('--ignore', type=int, default=255, metavar='N', help='value of pixels that do not count (255)')
    add('--classes', type=int, metavar='N', help='values lie below N (what the training masks have)')
    for split in ('train', 'test'):
        add(f'--max-{split}-images', type=int, metavar='N', help='at most so many, chosen at random (all)')
    add('--block', type=int, default=-1, metavar='N', help='after which block (-1, the last)')
    add('--timestep', type=int, metavar='T', help="of an l-DAE (the encoder's own)")
    scoring = parser.add_argument_group('scoring')
    for name, kind, many, about in (
        ('lrs', float, '+', 'learning rates of AdamW, to choose from (0.001 0.003 0.01 0.03)'),
        ('weight_decays', float, '+', 'its weight decays, to choose from (0.001)'),
        ('epochs', int, None, 'over the training images (20)'),
    ):
        scoring.add_argument(f'--{name.replace("_", "-")}', type=kind, nargs=many, metavar='N', help=about)
    shared.add_compute_options(parser, 'fp32')
    shared.add_import(parser)
    shared.add_ema(parser)
    add('--batch-size', type=int, default=64, metavar='N', help='images encoded at a time (64)')
    shared.add_shown_bands(parser)
    add('--workers', dest='num_workers', type=int, default=0, metavar='N', help='processes that read images (0)')
    add('--seed', type=int, default=0, help='of the linear layers (0)')
    add('--work-dir', metavar='DIR', help='folder for results and features (work_dirs/segment/CHECKPOINT)')
    add('--force', action='store_true', help='replace results that exist')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``ldae segment`` and ``tools/segment.py``."""
    args = parse_args(argv)
    import inspect

    from ldae.apis import segment
    from ldae.apis.segmenting import FILES
    from ldae.evaluation.dense_probe import DenseOptions

    given = ('lrs', 'weight_decays', 'epochs')
    shared.check_arguments(args, segment)
    shared.check_arguments(args, DenseOptions.__init__, *given)
    chosen = {name: getattr(args, name) for name in given if getattr(args, name) is not None}
    options = {name: value for name, value in vars(args).items() if name in inspect.signature(segment).parameters}
    found = segment(**options, options=DenseOptions(**chosen))
    print(f'\n{found.report()}\n\n{found.made_with["seconds"]} s. Wrote {", ".join(FILES)} to {found.folder}')
