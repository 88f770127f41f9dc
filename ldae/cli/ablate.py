# SPDX-License-Identifier: Apache-2.0
"""Run rows of the paper's tables at a small scale, score them, and put them beside the paper's figures."""

import argparse
from collections.abc import Sequence

from .options import add_study_options, make_parser, run_study, study_options


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Rows, scale, and what :func:`add_study_options` adds."""
    parser = make_parser(
        'ablate',
        "Pre-train rows of the paper's tables at a small scale, score each by k-NN and a linear layer, and write "
        "results.jsonl and table.md, with the paper's figures beside ours. Finished runs are skipped, interrupted ones "
        'resumed, and a row that fails is named at the end.',
        'tools/ablate.py table3 t2_pca_* f5_pixel_256 --scale fashion-mnist_subset --seeds 0 1 2 --jobs 2',
    )
    parser.add_argument(
        'rows', nargs='+', metavar='ROW', help='names in configs/deconstruction, globs, or tables as in table3'
    )
    parser.add_argument('--scale', required=True, metavar='NAME', help='a name in configs/scales, or a file')
    add_study_options(parser, [0], 'work_dirs/ablation', 'SCALE/ROW/seedN')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``ldae ablate`` and ``tools/ablate.py``: 1 if a row has failed, 130 after an interrupt."""
    args = parse_args(argv)
    from ldae.ablation import ablate

    return run_study(ablate, args.rows, **study_options(args, 'ablate', argv))
