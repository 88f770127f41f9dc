# SPDX-License-Identifier: Apache-2.0
"""Accuracies: with their spread, as points, and as curves."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW_HEIGHT = 0.22  # inches
#: Mean and standard deviation; None where there is nothing to take them of.
Spread = tuple[float | None, float | None]


def accuracy_by_row(ours: Mapping[str, Spread], papers: Sequence[float | None], scale: str) -> Figure:
    """Linear accuracy of each row with its spread; beside it, in a panel of its own, the paper's figures on ImageNet."""
    panels = {f'ours: {scale}': list(ours.values()), "the paper's: ImageNet": [(v, None) for v in papers]}
    return _panels(list(ours), panels, ['linear probe, top-1 (%)'] * 2, ['tab:blue', 'tab:grey'], ROW_HEIGHT)


def accuracy_by_encoder(rows: Mapping[str, tuple[Spread, Spread]]) -> Figure:
    """k-NN and linear accuracy of each kind of features, by label, with the spread over seeds."""
    panels = dict(zip(('k-NN', 'linear probe'), map(list, zip(*rows.values(), strict=True)), strict=True))
    xlabels = [f'{name}, top-1 (%)' for name in panels]
    return _panels(list(rows), panels, xlabels, ['tab:orange', 'tab:blue'], 1.5 * ROW_HEIGHT)


def _panels(
    labels: Sequence[str],
    panels: Mapping[str, Sequence[Spread]],
    xlabels: Sequence[str],
    colors: Sequence[str],
    height: float,
) -> Figure:
    figure = new_figure(9, 1.1 + height * len(labels))
    all_axes = figure.subplots(1, len(panels), sharey=True)
    for axes, (title, points), xlabel, color in zip(all_axes, panels.items(), xlabels, colors, strict=True):
        _draw_points(axes, points, color)
        axes.set_title(title, fontsize=9)
        axes.set(xlabel=xlabel)
    all_axes[0].set_yticks(range(len(labels)), labels, fontsize=7)
    all_axes[0].invert_yaxis()
    return figure


def _draw_points(axes: Axes, points: Sequence[Spread], color: str) -> None:
    """Points and not bars, since the axis doesn't begin at 0: the differences are what counts."""
    means = [np.nan if mean is None else mean for mean, _ in points]
    spread = [deviation or 0.0 for _, deviation in points]
    axes.errorbar(means, range(len(means)), xerr=spread, fmt='o', color=color, markersize=4, capsize=2)
    for i, mean in enumerate(means):
        if np.isfinite(mean):
            place = dict(textcoords='offset points', fontsize=6, ha='center', va='bottom')
            axes.annotate(f'{mean:.1f}', (mean, i), (0, 3), **place)
    axes.grid(axis='y', linewidth=0.3)
    axes.margins(x=0.1)


def accuracy_over_dimension(curves: Mapping[str, Sequence[tuple[int, Spread]]], scale: str) -> Figure:
    """Linear accuracy over the latent dimension d per token, a curve a tokenizer (the paper's Figures 3 and 5)."""
    figure = new_figure(5, 3.5)
    axes = figure.subplots()
    for name, points in curves.items():
        dims = [dim for dim, _ in points]
        means, spread = [mean for _, (mean, _) in points], [deviation or 0.0 for _, (_, deviation) in points]
        axes.errorbar(dims, means, spread, marker='o', markersize=4, capsize=2, label=name)
    ticks = sorted({dim for points in curves.values() for dim, _ in points})
    axes.set_xscale('log', base=2)
    axes.set_xticks(ticks, map(str, ticks))
    axes.minorticks_off()
    axes.set(xlabel='latent dimension d per token', ylabel='linear probe, top-1 (%)')
    axes.set_title(f'{scale}: mean and spread over seeds', fontsize=9)
    axes.legend(fontsize=8)
    return figure


def accuracy_against_distance(
    ours: Mapping[str, tuple[float, float]], papers: Mapping[str, tuple[float, float]], name: str, scale: str
) -> Figure:
    """Linear accuracy over the distance of samples, (distance, accuracy) by row; the paper's, if any, in a panel of its own."""
    from matplotlib.ticker import LogLocator

    figure = new_figure(4.5 * (1 + bool(papers)), max(3.6, ROW_HEIGHT / 2 * len(ours)))
    panels = [(ours, f'ours: {scale}', name)] + ([(papers, "the paper's: ImageNet", 'FID-50K')] if papers else [])
    for axes, (points, title, xlabel) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for row, point in points.items():
            axes.plot(*point, 'o', markersize=4)
            axes.annotate(row, point, (3, 3), textcoords='offset points', fontsize=5)
        axes.set_title(title, fontsize=9)
        axes.set(xlabel=f'{xlabel} (lower is better)', ylabel='linear probe, top-1 (%)', xscale='log')
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter('{x:g}')
        axes.xaxis.set_minor_formatter('')
        axes.margins(x=0.25)
        axes.grid(linewidth=0.3)
    return figure


def accuracy_curves(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    xlabel: str,
    title: str = '',
    dashed: Collection[str] = (),
) -> Figure:
    """Panels by the name of what is measured, each with points (x, accuracy in percent) by the name of their curve,
    some of which are dashed."""
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
