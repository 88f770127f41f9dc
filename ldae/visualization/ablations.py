# SPDX-License-Identifier: Apache-2.0
"""Pictures of the ablations' results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ldae.ablation.report import Score, Summary

BAR_HEIGHT = 0.22  # inches


def ablation_bars(summaries: Sequence[Summary], scale: str) -> Figure:
    """Linear accuracy of each row with its spread; beside it, in a panel of its own, the paper's figures on ImageNet."""
    figure = new_figure(9, 1.1 + BAR_HEIGHT * len(summaries))
    ours, papers = figure.subplots(1, 2, sharey=True)
    scores = [summary.linear for summary in summaries]
    spread = [score.std or 0.0 for score in scores]
    _bars(ours, [score.mean for score in scores], spread, 'tab:blue')
    ours.set(xlabel='linear probe, top-1 (%)')
    ours.set_title(f'ours: {scale}', fontsize=9)
    ours.set_yticks(range(len(summaries)), [summary.row.name for summary in summaries], fontsize=7)
    ours.invert_yaxis()
    _bars(papers, [summary.row.paper_linear or np.nan for summary in summaries], None, 'tab:grey')
    papers.set(xlabel='linear probe, top-1 (%)')
    papers.set_title("the paper's: ImageNet", fontsize=9)
    return figure


def _bars(axes: Axes, values: Sequence[float], spread: Sequence[float] | None, color: str) -> None:
    """Bars that begin near the smallest value: the differences are what counts, and the axis says where it begins."""
    values = np.asarray(values, dtype=float)
    axes.barh(range(len(values)), values, xerr=spread, color=color, capsize=2)
    for i, value in enumerate(values):
        if np.isfinite(value):
            axes.text(value, i, f' {value:.1f} ', va='center', ha='right', fontsize=6, color='white')
    if np.isfinite(values).any():
        low, high = np.nanmin(values), np.nanmax(values)
        margin = max(1.0, 0.25 * (high - low))
        axes.set_xlim(max(0.0, low - 2 * margin), high + margin)


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
