# SPDX-License-Identifier: Apache-2.0
"""See what an l-DAE makes of noise."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ldae.utils import ConfigError, check_range

from .options import SAMPLERS, add_compute_options, add_ema, add_import, add_shown_bands, check_arguments, make_parser

SUFFIXES = ('.png', '.jpg', '.jpeg', '.pdf', '.svg')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of ``ldae denoise``."""
    parser = make_parser(
        'denoise',
        'Draw images clean, then noisy and denoised by an l-DAE at each of several noise levels.',
        'tools/denoise.py work_dirs/vit-b_pca/epoch_400.pth photo.jpg --t 100 300 600 --out denoised.png',
    )
    add = parser.add_argument
    add('checkpoint', help='of the pre-training of an l-DAE')
    add('images', nargs='+', metavar='IMAGE', help='files, folders of them, or wds::, hf:: or csv:: data')
    add('--t', nargs='+', type=int, default=[100, 300, 600], metavar='T', help='time steps (100 300 600)')
    add('--out', required=True, metavar='FILE', help=f'picture to write ({", ".join(SUFFIXES)})')
    add('--config', metavar='FILE', help="the checkpoint's config (the one that it holds)")
    add_import(parser)
    add_ema(parser)
    add('--num-images', type=int, default=8, metavar='N', help='rows at most, of different folders (8)')
    add('--steps', type=int, metavar='N', help='take the noise out in so many steps of a sampler, not at once')
    add('--sampler', choices=SAMPLERS, help="one of diffusers' samplers (dpm++)")
    about = 'draw N pictures from the first of two images to the second'
    add('--interpolate', type=int, metavar='N', help=about)
    add('--seed', type=int, default=0, help='of the noise (0)')
    add_shown_bands(parser)
    add_compute_options(parser, 'fp32')
    add('--force', action='store_true', help='replace what exists')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``ldae denoise`` and ``tools/denoise.py``."""
    args = parse_args(argv)
    out = check_out(Path(args.out), args.force)

    from ldae.apis import get_model
    from ldae.generation.denoising import check_denoiser, denoising_figure, interpolation_figure
    from ldae.visualization import save_figure

    check_arguments(args, denoising_figure, 'seed', 'steps')
    check_range('--num-images', args.num_images, 1, kind=int)
    if args.sampler is not None and args.steps is None and args.interpolate is None:
        raise ConfigError(f'--sampler {args.sampler} takes noise out in steps: say how many with --steps')
    model = get_model(args.config, args.checkpoint, args.device, ema=args.ema)
    if args.shown_bands:
        check_denoiser(model, args.t).show_bands(args.shown_bands)
    options = dict(seed=args.seed, steps=args.steps, sampler=args.sampler or 'dpm++', precision=args.precision)
    if args.interpolate is None:
        figure = denoising_figure(model, args.images, args.t, limit=args.num_images, **options)
    else:
        check_range('--interpolate', args.interpolate, 2, kind=int)
        options['steps'] = args.steps or 50
        figure = interpolation_figure(model, args.images, args.t, args.interpolate, **options)
    print(f'written: {save_figure(figure, out)}')


def check_out(path: Path, force: bool) -> Path:
    """A picture that may be written."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f'--out {path}: pictures end in {", ".join(SUFFIXES)}')
    if path.exists() and not force:
        raise ConfigError(f'--out {path} exists: name another file, or add --force to replace it')
    return path
