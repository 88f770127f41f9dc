# SPDX-License-Identifier: Apache-2.0
"""Repeat a training step that was skipped because its loss or gradient wasn't finite, and say where that began."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .options import add_device, add_import, make_parser

if TYPE_CHECKING:
    from ldae.engine.non_finite.reproduce import Findings

ALL_FINITE = 1
SHOWN = 6


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Folder, ``--rank`` and ``--device``."""
    parser = make_parser(
        'reproduce',
        'Repeat a training step that was skipped because its loss or gradient was not finite, and say which image, module, '
        'loss and gradient are not. Exit status: 0 reproduced, 1 everything is finite this time, 2 error.',
        'tools/reproduce.py work_dirs/vit-b_pca/non_finite/iter_1234',
    )
    add = parser.add_argument
    add('folder', metavar='DIR', help='what training wrote: WORK_DIR/non_finite/iter_N')
    add('--rank', type=int, metavar='N', help="only that process's batch (all)")
    add_import(parser)
    add_device(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``ldae reproduce`` and ``tools/reproduce.py``: 1 if nothing is wrong this time."""
    args = parse_args(argv)
    from ldae.engine.non_finite.reproduce import reproduce_folder

    weights, repeated = reproduce_folder(Path(args.folder), args.rank, args.device)
    print(f'weights: {listed(weights)}')
    reproduced = False
    for content, found in repeated:
        print(f'\nstep {found.iter + 1}, process {content["rank"]} of {content["world_size"]}')
        print('\n'.join(described(found)))
        reproduced |= found.reproduced
    print('\nreproduced' if reproduced else '\nnot reproduced: everything is finite this time')
    return 0 if reproduced else ALL_FINITE


def described(found: Findings) -> list[str]:
    """The findings of one batch, a line each."""
    samples = [f'{i} (t = {t})' for i, t in found.samples]
    lines = [
        f'images: {listed(found.images)}',
        f'modules with such an output, first to last: {listed(found.modules)}',
        'losses: ' + ', '.join(f'{name} = {value:.6g}' for name, value in found.losses.items()),
    ]
    if found.same_timesteps is not None:
        lines.append(f'images with such a loss: {listed(samples)}')
    lines.append(f'gradients: {listed(found.gradients, found.num_gradients)}')
    if found.same_timesteps is False:
        lines.append('note: the time steps drawn are not those of the run, which was on another device')
    return lines


def listed(names: Sequence[object], total: int | None = None) -> str:
    """'2 not finite: a, b'."""
    if not names:
        return 'all finite'
    shown = ', '.join(map(str, names[:SHOWN])) + (', ...' if len(names) > SHOWN else '')
    return f'{len(names)}{f" of {total}" if total else ""} not finite: {shown}'
