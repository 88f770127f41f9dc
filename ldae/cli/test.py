# SPDX-License-Identifier: Apache-2.0
"""Evaluate a checkpoint."""

import argparse
from collections.abc import Sequence

from .options import add_compute_options, add_config_options, add_launcher_options, launch_options, make_parser


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of mmpretrain's test.py, and ``--data-root``."""
    parser = make_parser(
        'test',
        'Evaluate a checkpoint: accuracy of a classifier, loss and PSNR by noise level of l-DAE.',
        'tools/test.py configs/ldae/vit-b_pca.py work_dirs/vit-b_pca/epoch_400.pth --out metrics.json --out-item metrics',
    )
    add_config_options(parser)
    add = parser.add_argument
    add('checkpoint', help='checkpoint file')
    add('--work-dir', metavar='DIR', help='folder for logs (work_dirs/[SCALE/]CONFIG)')
    add('--out', metavar='FILE', help='write results to a .pkl, .json or .yml file')
    add('--out-item', choices=['metrics', 'pred'], help='what --out holds (predictions)')
    add_compute_options(parser, 'fp32', amp=True)
    add('--show', action='store_true', help='show predictions in a window')
    add('--show-dir', metavar='DIR', help='write pictures of predictions')
    add('--interval', type=int, default=1, help='draw every so many images')
    add('--wait-time', type=float, default=2, help='seconds that a window stays')
    add('--no-pin-memory', action='store_true', help='pin_memory=False in all data loaders')
    add('--tta', action='store_true', help='average over a flip, or what tta_pipeline says')
    add_launcher_options(parser)
    args = parser.parse_args(argv)
    if args.out_item and not args.out:
        parser.error('--out-item needs --out')
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``ldae test`` and ``tools/test.py``."""
    args = parse_args(argv)
    from ldae.launch import evaluate

    pictures = None
    if args.show or args.show_dir:
        pictures = dict(show=args.show, wait_time=args.wait_time, out_dir=args.show_dir, interval=args.interval)
    options = dict(out=args.out, out_item=args.out_item or 'pred', tta=args.tta, pictures=pictures)
    evaluate(args.config, args.checkpoint, args.cfg_options, args.scale, **launch_options(args) | options)
