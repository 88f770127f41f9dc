# SPDX-License-Identifier: Apache-2.0
"""Take an encoder away, as a plain ViT of another library."""

import argparse
from collections.abc import Sequence

from .options import add_ema, add_import, image_options, make_parser

FORMATS = ('mmpretrain', 'timm', 'hf', 'onnx')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of ``ldae export``."""
    parser = make_parser(
        'export',
        'Write the encoder of a checkpoint as a plain ViT: the time step merged, the PCA folded in. The result is read back\n'
        "and must give the source's features to 1e-4 of the largest; else nothing is written.",
        'tools/export.py work_dirs/vit-b_pca/epoch_400.pth --to timm --out vit-b_ldae --img-size 224',
    )
    add = parser.add_argument
    add('checkpoint', help='of pre-training (l-DAE, MAE), a probe or fine-tuning')
    add('--to', required=True, choices=FORMATS, help='library or format')
    add('--out', required=True, metavar='PATH', help='file to write (.pth for mmpretrain, .onnx), or folder (timm, hf)')
    add('--config', metavar='FILE', help="the checkpoint's config (the one that it holds)")
    add_import(parser)
    add_ema(parser)
    add('--timestep', type=int, metavar='T', help="t to merge (the config's, 10 by default)")
    add('--img-size', type=int, nargs='+', metavar='N', help="pixels, one number or height and width (the config's)")
    about = 'pictures, or folders of them, to compare on beside random and validation images'
    add('--check', nargs='+', metavar='PATH', help=about)
    add('--save-example', metavar='FILE', help='.npz file with images and the features that they must give')
    add('--force', action='store_true', help='replace what exists')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``ldae export`` and ``tools/export.py``."""
    args = parse_args(argv)
    from ldae.export import export_encoder

    options = dict(config=args.config, timestep=args.timestep, force=args.force, **image_options(args))
    options |= dict(check=args.check, example=args.save_example, ema=args.ema)
    exported = export_encoder(args.checkpoint, args.to, args.out, **options)
    print(exported.vit)
    errors = ', '.join(f'{error:.1e} on {kind}' for kind, error in exported.errors.items())
    print(f'largest error, relative to the largest feature: {errors}')
    print(f'written: {exported.path}\nload it: {exported.hint}')
