# SPDX-License-Identifier: Apache-2.0
"""Fit a PCA tokenizer to a data set, into a file that a config can name."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ldae.utils import ConfigError

from .options import add_config_options, make_parser

if TYPE_CHECKING:
    from mmengine.config import Config

    from ldae.models.tokenizers import BaseTokenizer


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of ``ldae fit-pca``."""
    parser = make_parser(
        'fit-pca',
        'Fit the tokenizer of a config to its training set. Training does this by itself; a file serves several runs:\n'
        'name it in model.tokenizer.checkpoint.',
        'tools/fit_pca.py configs/ldae/vit-b_pca.py --data-root data/imagenet --out pca.pth --figure filters.png',
    )
    add_config_options(parser)
    parser.add_argument('--out', required=True, metavar='FILE', help='file to write')
    parser.add_argument('--num-images', type=int, metavar='N', help='size of the random sample (all images)')
    parser.add_argument('--batch-size', type=int, default=256, help='images read at a time')
    parser.add_argument('--num-workers', type=int, default=0, help='processes that read images')
    parser.add_argument('--seed', type=int, default=0, help='of the random sample')
    parser.add_argument('--figure', metavar='FILE', help='draw the filters')
    args = parser.parse_args(argv)
    if args.num_images is not None and args.num_images < 1:
        parser.error('--num-images must be at least 1')
    return args


def build_tokenizer(cfg: 'Config') -> 'BaseTokenizer':
    """The tokenizer of a config's model, not fitted."""
    from ldae.registry import MODELS

    tokenizer = dict(cfg.model.get('tokenizer') or {}, checkpoint=None)
    if not tokenizer.get('type'):
        raise ConfigError(f'{cfg.filename} has no model.tokenizer: there is nothing to fit')
    tokenizer = MODELS.build(tokenizer)
    if not tokenizer.needs_fit:
        raise ConfigError(f'{type(tokenizer).__name__} needs no fitting')
    return tokenizer


def report(tokenizer: 'BaseTokenizer', out: str) -> None:
    """Print how much of the variance the latents keep."""
    geometry, kept = tokenizer.geometry, tokenizer.kept_variance
    share = '' if kept is None else f' keep {100 * kept:.2f} % of the variance'
    print(f'{geometry.latent_dim} of {geometry.patch_dim} dimensions a patch{share}: {out}')


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``ldae fit-pca`` and ``tools/fit_pca.py``."""
    args = parse_args(argv)
    from mmengine.registry import init_default_scope

    from ldae.config import load_config, set_data_root
    from ldae.config.components import check_data_roots, check_settings
    from ldae.config.packed import use_packed_data
    from ldae.engine.tokenizer.fit import fit_tokenizer
    from ldae.models.tokenizers.files import save_tokenizer
    from ldae.registry import DATASETS

    cfg = load_config(args.config, args.cfg_options, args.scale)
    if args.data_root is not None:
        set_data_root(cfg, args.data_root)
    use_packed_data(cfg)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    check_settings(cfg)
    check_data_roots(cfg)
    tokenizer = build_tokenizer(cfg)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    fit_tokenizer(
        tokenizer,
        dataset,
        data_preprocessor=build_preprocessor(cfg),
        num_images=args.num_images,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        seed=args.seed,
    )
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    save_tokenizer(tokenizer, args.out)
    report(tokenizer, args.out)
    if args.figure:
        draw(tokenizer, args.figure)


def build_preprocessor(cfg: 'Config') -> object:
    """The model's data preprocessor: the tokenizer must see what it will see in training."""
    from ldae.registry import MODELS

    preprocessor = dict(cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {})
    preprocessor.setdefault('type', 'SelfSupDataPreprocessor')
    return MODELS.build(preprocessor)


def draw(tokenizer: 'BaseTokenizer', path: str) -> None:
    """Write a picture of the filters."""
    from ldae.visualization import filter_grid, save_figure

    geometry = tokenizer.geometry
    if tokenizer.basis is None:
        raise ConfigError(f'{type(tokenizer).__name__} has no filters to draw: leave --figure out')
    figure = filter_grid(tokenizer.basis[: geometry.latent_dim], geometry.patch_size, geometry.in_channels)
    print(f'filters drawn: {save_figure(figure, path)}')
