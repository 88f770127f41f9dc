# SPDX-License-Identifier: Apache-2.0
"""A page to play with pictures, tokenizers, noise and a model."""

import argparse
from collections.abc import Sequence

from .options import DATA, add_device, add_import, make_parser, sigterm_interrupts


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of ``ldae page``."""
    parser = make_parser(
        'page',
        'Open a page on this machine: latents, noise, what a model makes of them, on pictures that you choose or upload.\n'
        'Without a checkpoint it shows tokenizers: PCA of the pictures, DCT, random projections. Needs the extra page.',
        'tools/page.py work_dirs/vit-b_pca/epoch_400.pth --images photos --data-root data/imagenet',
    )
    add = parser.add_argument
    about = "a checkpoint, the work dir of a training, a tokenizer's file, timm::NAME"
    add('checkpoint', nargs='?', metavar='CHECKPOINT', help=about)
    add('--images', nargs='+', metavar='FILE', help='pictures to offer, or folders of them (shipped ones)')
    add('--data-root', metavar='DIR', help=f'{DATA}, for neighbours, and for samples')
    add('--host', default='127.0.0.1', metavar='ADDRESS', help='to listen at; any other opens it to others (127.0.0.1)')
    add('--port', type=int, metavar='N', help='to listen at (a free one from 7860 on)')
    add_device(parser)
    add_import(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``ldae page`` and ``tools/page.py``."""
    args = parse_args(argv)
    from ldae.page import open_page

    with sigterm_interrupts():
        open_page(args.checkpoint, args.images, args.data_root, args.device, args.host, args.port)
