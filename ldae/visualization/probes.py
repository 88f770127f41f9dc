# SPDX-License-Identifier: Apache-2.0
"""Accuracies as curves, in panels beside each other."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from .figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def accuracy_curves(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    xlabel: str,
    title: str = '',
    dashed: Collection[str] = (),
) -> Figure:
    """Panels by the name of what is measured, each with points (x, accuracy in percent) by the name of their curve.

    Args:
        dashed: Curves that are drawn so.
    """
    figure = new_figure(4 * len(panels), 3.2)
    axes_of = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (name, curves) in zip(axes_of, panels.items(), strict=True):
        for label in sorted(curves):
            style = '--' if label in dashed else '-'
            axes.plot(*zip(*curves[label], strict=True), style, marker='o', ms=4, label=label)
        axes.set(xlabel=xlabel, ylabel=f'{name}, top-1 (%)')
        axes.set_xticks(sorted({x for points in curves.values() for x, _ in points}))
        axes.set_title(title, fontsize=9)
    axes_of[0].legend(fontsize=7)
    return figure
