# SPDX-License-Identifier: Apache-2.0
"""Fit a PCA tokenizer to a data set, into a file that a config can name."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ldae.utils import ConfigError

from .options import add_config_options, add_device, add_image_options, image_options, make_parser


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of ``ldae fit-pca``."""
    parser = make_parser(
        'fit-pca',
        'Fit the tokenizer of a config to its training set. Training does this by itself; a file serves several runs:\n'
        'name it in model.tokenizer.checkpoint.',
        'tools/fit_pca.py configs/ldae/vit-b_pca.py --data-root data/imagenet --out pca.pth --figure filters.png',
    )
    add_config_options(parser)
    add_image_options(parser)
    add = parser.add_argument
    add('--out', required=True, metavar='FILE', help='file to write')
    add('--num-images', type=int, metavar='N', help='size of the random sample (all images)')
    add('--batch-size', type=int, default=256, help='images read at a time')
    add('--num-workers', type=int, default=0, help='processes that read images')
    add('--seed', type=int, default=0, help='of the random sample')
    add_device(parser)
    add('--figure', metavar='FILE', help='draw the filters')
    args = parser.parse_args(argv)
    if args.num_images is not None and args.num_images < 1:
        parser.error('--num-images must be at least 1')
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``ldae fit-pca`` and ``tools/fit_pca.py``."""
    args = parse_args(argv)
    from ldae.config import load_config
    from ldae.config.images import fit_images
    from ldae.models.tokenizers.base import save_tokenizer
    from ldae.models.tokenizers.fit import fit_tokenizer_of
    from ldae.visualization import filter_grid, save_figure

    cfg = load_config(args.config, args.cfg_options, args.scale, args.data_root)
    fit_images(cfg, **image_options(args))
    options = {name: getattr(args, name) for name in ('num_images', 'batch_size', 'num_workers', 'seed', 'device')}
    tokenizer = fit_tokenizer_of(cfg, **options)
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    save_tokenizer(tokenizer, args.out)
    geometry, kept = tokenizer.geometry, tokenizer.kept_variance
    share = '' if kept is None else f' keep {100 * kept:.2f} % of the variance'
    print(f'{geometry.latent_dim} of {geometry.patch_dim} dimensions a patch{share}: {args.out}')
    if args.figure:
        if tokenizer.basis is None:
            raise ConfigError(f'{type(tokenizer).__name__} has no filters to draw: leave --figure out')
        filters = tokenizer.basis[: geometry.latent_dim]
        figure = filter_grid(filters, geometry.patch_size, geometry.in_channels, bands=args.shown_bands)
        print(f'filters drawn: {save_figure(figure, args.figure)}')
