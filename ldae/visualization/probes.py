# SPDX-License-Identifier: Apache-2.0
"""The paper's appendix A as pictures: accuracy over the time step, and over the depth of the encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ProbeRow = Any  # block, timestep, input, knn by k, linear
INPUT_STYLES = dict(clean='-', noisy='--')


def accuracy_over_timestep(rows: Sequence[ProbeRow]) -> Figure:
    """Over the fixed t that features are taken at; a curve for clean and noisy input, at the deepest block."""
    deepest = max(row.block for row in rows)
    rows = [row for row in rows if row.block == deepest]
    title = f'block {deepest}'
    return _two_panels(
        rows, 'time step t of the features', title, lambda row: row.timestep, lambda row: (row.input,)
    )


def accuracy_over_block(rows: Sequence[ProbeRow]) -> Figure:
    """Over the block that features are taken after; a curve for each time step and kind of input."""
    return _two_panels(rows, 'block', '', lambda row: row.block, lambda row: (row.timestep, row.input))


def _two_panels(
    rows: Sequence[ProbeRow],
    xlabel: str,
    title: str,
    x: Callable[[ProbeRow], int],
    curve: Callable[[ProbeRow], tuple],
) -> Figure:
    """Linear accuracy, and beside it k-NN of the smallest k."""
    k = next(iter(rows[0].knn))
    figure = new_figure(8, 3.2)
    panels = figure.subplots(1, 2)
    curves = sorted({curve(row) for row in rows}, key=str)
    for axes, name in zip(panels, ('linear probe', f'{k}-NN'), strict=True):
        for key in curves:
            mine = sorted((row for row in rows if curve(row) == key), key=x)
            values = [row.linear if name == 'linear probe' else row.knn[k] for row in mine]
            label = ', '.join(
                f't = {part}' if isinstance(part, int) else part for part in key if part is not None
            )
            axes.plot(
                [x(row) for row in mine], values, INPUT_STYLES[mine[0].input], marker='o', ms=4, label=label
            )
        axes.set(xlabel=xlabel, ylabel=f'{name}, top-1 (%)')
        axes.set_xticks(sorted({x(row) for row in rows}))
        axes.set_title(title, fontsize=9)
    panels[0].legend(fontsize=7)
    return figure
