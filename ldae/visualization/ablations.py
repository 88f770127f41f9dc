# SPDX-License-Identifier: Apache-2.0
"""Pictures of the ablations' results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Score = Summary = Any  # numbers with a spread; those of a row
ROW_HEIGHT = 0.22  # inches


def accuracy_by_row(summaries: Sequence[Summary], scale: str) -> Figure:
    """Linear accuracy of each row with its spread; beside it, in a panel of its own, the paper's figures on ImageNet."""
    figure = new_figure(9, 1.1 + ROW_HEIGHT * len(summaries))
    ours, papers = figure.subplots(1, 2, sharey=True)
    scores = [summary.linear for summary in summaries]
    spread = [score.std or 0.0 for score in scores]
    _points(ours, [score.mean for score in scores], spread, 'tab:blue')
    ours.set_title(f'ours: {scale}', fontsize=9)
    ours.set_yticks(range(len(summaries)), [summary.row.name for summary in summaries], fontsize=7)
    ours.invert_yaxis()
    _points(papers, [summary.row.paper_linear or np.nan for summary in summaries], None, 'tab:grey')
    papers.set_title("the paper's: ImageNet", fontsize=9)
    return figure


def _points(axes: Axes, values: Sequence[float], spread: Sequence[float] | None, color: str) -> None:
    """Points and not bars, since the axis doesn't begin at 0: the differences are what counts."""
    axes.errorbar(values, range(len(values)), xerr=spread, fmt='o', color=color, markersize=4, capsize=2)
    for i, value in enumerate(values):
        if np.isfinite(value):
            text = f'{value:.1f}'
            axes.annotate(
                text, (value, i), (0, 3), textcoords='offset points', fontsize=6, ha='center', va='bottom'
            )
    axes.set(xlabel='linear probe, top-1 (%)')
    axes.grid(axis='y', linewidth=0.3)
    axes.margins(x=0.1)


def accuracy_over_dimension(curves: Mapping[str, Sequence[tuple[int, Score]]], scale: str) -> Figure:
    """Linear accuracy over the latent dimension d per token, a curve a tokenizer (the paper's Figures 3 and 5)."""
    figure = new_figure(5, 3.5)
    axes = figure.subplots()
    for name, points in curves.items():
        dims, scores = zip(*points, strict=True)
        spread = [score.std or 0.0 for score in scores]
        axes.errorbar(
            dims, [score.mean for score in scores], spread, marker='o', markersize=4, capsize=2, label=name
        )
    ticks = sorted({dim for points in curves.values() for dim, _ in points})
    axes.set_xscale('log', base=2)
    axes.set_xticks(ticks, map(str, ticks))
    axes.minorticks_off()
    axes.set(xlabel='latent dimension d per token', ylabel='linear probe, top-1 (%)')
    axes.set_title(f'{scale}: mean and spread over seeds', fontsize=9)
    axes.legend(fontsize=8)
    return figure


def accuracy_by_encoder(rows: Mapping[str, Mapping[str, Score]]) -> Figure:
    """k-NN and linear accuracy (``knn``, ``linear``) of each kind of features, by label, with the spread over seeds."""
    figure = new_figure(9, 1.1 + 1.5 * ROW_HEIGHT * len(rows))
    panels = figure.subplots(1, 2, sharey=True)
    for axes, metric, color in zip(panels, ('knn', 'linear'), ('tab:orange', 'tab:blue'), strict=True):
        scores = [row[metric] for row in rows.values()]
        spread = [score.std or 0.0 for score in scores]
        _points(axes, [score.mean for score in scores], spread, color)
        axes.set(xlabel=f'{"k-NN" if metric == "knn" else "linear probe"}, top-1 (%)')
    panels[0].set_yticks(range(len(rows)), list(rows), fontsize=8)
    panels[0].invert_yaxis()
    return figure
