# SPDX-License-Identifier: Apache-2.0
"""Print a config with all that it inherits."""

import argparse
import difflib
from collections.abc import Sequence

from .options import add_config_options, make_parser


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of ``ldae print-config``."""
    parser = make_parser(
        'print-config',
        'Print a config with all that it inherits.',
        'tools/print_config.py configs/ldae/vit-l_pca.py --diff configs/ldae/vit-b_pca.py',
    )
    add_config_options(parser)
    parser.add_argument('--diff', metavar='OTHER', help='print only what differs from another config')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``ldae print-config`` and ``tools/print_config.py``."""
    args = parse_args(argv)
    from ldae.config import load_config

    cfg = load_config(args.config, args.cfg_options, args.scale, args.data_root)
    if args.diff is None:
        print(cfg.pretty_text)
        return
    old, new = load_config(args.diff, scale=args.scale).pretty_text.splitlines(), cfg.pretty_text.splitlines()
    for line in difflib.unified_diff(old, new, args.diff, args.config, n=1, lineterm=''):
        print(line)
