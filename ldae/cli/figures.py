# SPDX-License-Identifier: Apache-2.0
"""Draw figures of runs and of any pictures."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ldae.utils import ConfigError, check_choice

from .options import add_device, add_import, check_arguments, make_parser

FORMATS = ('png', 'svg', 'pdf', 'jpg')
#: Of :data:`ldae.reports.FIGURES`, whose room would load torch.
NAMES = (
    *(
        'schedules',
        'filters',
        'variance',
        'noise',
        'denoised',
        'bound',
        'reconstruction',
        'levels',
        'loss',
        'dimension',
        'axis',
        'road',
    ),
    *('rows', 'distance', 'encoders', 'timesteps', 'blocks', 'attention', 'features', 'neighbours', 'embedding'),
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of ``ldae figures``."""
    parser = make_parser(
        'figures',
        'Draw figures of runs and of any pictures: by name, or all that the files of a run allow. docs/figures.md says what each needs.',
        'tools/figures.py noise --image photo.jpg --out figures\n'
        '  tools/figures.py denoised attention --run work_dirs/vit-b_pca --image photo.jpg --out figures\n'
        '  tools/figures.py --all work_dirs/vit-b_pca --out figures --format png svg',
    )
    add = parser.add_argument
    add('names', nargs='*', metavar='NAME', help=', '.join(NAMES))
    run = 'a work dir of a training, ablation, comparison, probe or the demo; a checkpoint, a file of a tokenizer, timm::NAME'
    add('--run', nargs='+', default=[], metavar='RUN', help=run)
    add('--all', nargs='+', metavar='RUN', help='draw all that these runs allow, and say why others are left out')
    add('--image', nargs='+', metavar='FILE', help='pictures, or folders of them (test images of the run)')
    add('--out', default='figures', metavar='DIR', help='folder to write to (figures)')
    add('--format', nargs='+', choices=FORMATS, default=['png'], help='of the files (png)')
    add('--count', type=int, default=4, metavar='N', help='most pictures in a figure (4)')
    add('--schedules', nargs='+', metavar='NAME', help='of noise (ddpm_linear linear_gamma_sq linear_sigma)')
    add(
        '--t',
        type=int,
        nargs='+',
        dest='timesteps',
        metavar='T',
        help="of denoised pictures (the model's of validation)",
    )
    add('--sigma', type=float, metavar='X', help='of the noise in pixels and latents (0.577)')
    add('--blocks', type=int, nargs='+', metavar='N', help='of attention and feature maps; negative from the end')
    add('--seed', type=int, help='of noise and embedding (0)')
    add('--pretrained', action='store_true', help="download the weights of another library's encoder")
    add('--no-captions', dest='captions', action='store_false', help='without the caption below each figure')
    add_device(parser)
    add_import(parser)
    add('--force', action='store_true', help='replace what exists')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``ldae figures`` and ``tools/figures.py``."""
    args = parse_args(argv)
    if bool(args.names) == bool(args.all):
        raise ConfigError(f'name figures, or runs with --all: {", ".join(NAMES)}')
    for name in args.names:
        check_choice('figures', name, NAMES)
    from ldae.reports import Options, Source, save_figures

    check_arguments(args, Source.__init__, 'count')
    names = ('schedules', 'timesteps', 'sigma', 'blocks', 'seed')
    check_arguments(args, Options.__init__, *names)
    options = Options(**{name: getattr(args, name) for name in names if getattr(args, name) is not None})
    source = Source(args.all or args.run, args.image, args.count, args.device, args.pretrained)
    place = Path(args.out), args.format, args.force
    for line in save_figures(source, args.names or None, options, *place, captions=args.captions):
        print(line, flush=True)
