# SPDX-License-Identifier: Apache-2.0
"""A page on runs."""

import argparse
from collections.abc import Sequence

from .options import make_parser


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of ``ldae report``."""
    parser = make_parser(
        'report',
        'Write one page of HTML on runs: what was run, on what, curves, tables, pictures, what is missing.\n'
        'It asks for nothing, and works on runs that are unfinished or broken.',
        'tools/report.py work_dirs/demo --out report.html\n  ldae report work_dirs/vit-b_pca work_dirs/compare --watch 30',
    )
    add = parser.add_argument
    add(
        'folders',
        nargs='+',
        metavar='WORK_DIR',
        help='of trainings, studies, comparisons, probes, samples, or folders of them',
    )
    add('--out', default='report.html', metavar='FILE', help='the page (report.html)')
    add(
        '--figures',
        action='store_true',
        help='draw the figures of each run, too (ldae figures --all): up to a minute each',
    )
    about = 'write it anew every so many seconds, and let an open page follow (15)'
    add('--watch', nargs='?', type=int, const=15, metavar='SECONDS', help=about)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``ldae report`` and ``tools/report.py``."""
    args = parse_args(argv)
    from ldae.reports import report, watch
    from ldae.utils import check_range

    if args.watch is not None:
        check_range('--watch', args.watch, 1, 86400, kind=int)
        print(f'Writing {args.out} every {args.watch} s, until Ctrl-C')
        watch(args.folders, args.out, args.watch, args.figures)
    runs = report(args.folders, args.out, with_figures=args.figures)
    print(
        f'Wrote {args.out}: {", ".join(f"{run.name} ({run.kind})" for run in runs[:10])}' + ', ...' * (len(runs) > 10)
    )
