# SPDX-License-Identifier: Apache-2.0
"""Accuracies: with their spread, as points, and as curves."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import cycle, product
from typing import TYPE_CHECKING

import numpy as np

from .figures import GREY, MARKERS, PALETTE, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW_HEIGHT = 0.22  # inches
#: Mean and standard deviation; None where there is nothing to take them of.
Spread = tuple[float | None, float | None]


def accuracy_by_row(ours: Mapping[str, Spread], papers: Sequence[float | None], scale: str) -> Figure:
    """Linear accuracy of each row with its spread; beside it, in a panel of its own, the paper's figures on ImageNet."""
    panels = {f'ours: {scale}': list(ours.values()), "the paper's: ImageNet": [(v, None) for v in papers]}
    return _panels(list(ours), panels, ['linear probe, top-1 (%)'] * 2, [PALETTE[0], GREY], ROW_HEIGHT)


def accuracy_by_encoder(rows: Mapping[str, tuple[Spread, Spread]]) -> Figure:
    """k-NN and linear accuracy of each kind of features, by label, with the spread over seeds."""
    panels = dict(zip(('k-NN', 'linear probe'), map(list, zip(*rows.values(), strict=True)), strict=True))
    xlabels = [f'{name}, top-1 (%)' for name in panels]
    return _panels(list(rows), panels, xlabels, [PALETTE[4], PALETTE[0]], 1.5 * ROW_HEIGHT)


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
    all_axes[0].set_ylim(len(labels) - 0.4, -0.8)
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


def accuracy_over_dimension(
    curves: Mapping[str, Sequence[tuple[int, Spread]]],
    scale: str,
    papers: Mapping[str, Sequence[tuple[int, Spread]]] | None = None,
) -> Figure:
    """Linear accuracy over the latent dimension d per token, a curve a tokenizer (the paper's Figures 3 and 5); the paper's, if
    any, in a panel of its own."""
    panels = {f'ours: {scale}, mean and spread over seeds': curves} | (
        {"the paper's: ImageNet": papers} if papers else {}
    )
    return _curves(panels, 'latent dimension d per token', base=2)


def accuracy_over_share(
    curves: Mapping[str, Sequence[tuple[float, Spread]]], ends: Mapping[str, tuple[float, Spread]], scale: str
) -> Figure:
    """Linear accuracy over the share of tokens that are noised, in percent, a curve a level of noise; ``ends``, points of a
    curve, have their names beside them."""
    figure = _curves({f'ours: {scale}, mean and spread over seeds': curves}, 'share of the tokens noised (%)')
    figure.set_size_inches(7, 3.5)
    figure.axes[0].margins(0.12)  # room for names
    figure.axes[0].legend(fontsize=8, loc='center left', bbox_to_anchor=(1, 0.5))  # where it covers no point
    for name, (share, (mean, _)) in ends.items():
        place = dict(textcoords='offset points', fontsize=8, ha='right', va='bottom')
        figure.axes[0].annotate(name, (share, mean), (-5, 4), **place)
    return figure


def _curves(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, Spread]]]], xlabel: str, base: int | None = None
) -> Figure:
    """Panels by title, each with points (x, mean and deviation) by the name of their curve; x in powers of a base, if any."""
    figure = new_figure(1 + 4 * len(panels), 3.5)
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    for axes, (title, shown) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for name, points in shown.items():
            places = [x for x, _ in points]
            means, spread = [mean for _, (mean, _) in points], [deviation or 0.0 for _, (_, deviation) in points]
            style = dict(
                marker=MARKERS[names.index(name) % len(MARKERS)], color=PALETTE[names.index(name) % len(PALETTE)]
            )
            axes.errorbar(places, means, spread, markersize=4, capsize=2, label=name, **style)
        ticks = sorted({x for points in shown.values() for x, _ in points})
        if base:
            axes.set_xscale('log', base=base)
        axes.set_xticks(ticks, map('{:g}'.format, ticks))
        axes.minorticks_off()
        axes.set(xlabel=xlabel, ylabel='linear probe, top-1 (%)')
        axes.set_title(title, fontsize=9)
        axes.legend(fontsize=8)
    return figure


def road(rows: Mapping[str, tuple[Spread, float | None]], scale: str) -> Figure:
    """Bars of linear accuracy, step by step from the diffusion transformer to the l-DAE: ours with their spread over seeds beside
    the paper's, by the label of a step; of a step that wasn't run there is no bar."""
    figure = new_figure(9, 1.2 + 0.26 * len(rows))
    panels = figure.subplots(1, 2, sharey=True)
    ours, papers = zip(*rows.values(), strict=True)
    series = [ours, [(value, None) for value in papers]]
    titles = [f'ours: {scale}', "the paper's: ImageNet"]
    for axes, title, points, style in zip(
        panels, titles, series, (dict(color=PALETTE[5]), dict(color='white', edgecolor=GREY, hatch='///')), strict=True
    ):
        means = [0.0 if mean is None else mean for mean, _ in points]
        axes.barh(range(len(points)), means, xerr=[deviation or 0.0 for _, deviation in points], **style)
        for i, (mean, deviation) in enumerate(points):
            text = 'not run' if mean is None else f'{mean:.1f}'
            axes.text((mean or 0.0) + (deviation or 0.0) + 1, i, text, va='center', fontsize=7)
        axes.set_title(title, fontsize=9)
        axes.set(xlabel='linear probe, top-1 (%)', xlim=(0, 1.15 * max([*means, 1.0])))
    panels[0].set_yticks(range(len(rows)), list(rows), fontsize=7)
    panels[0].invert_yaxis()
    return figure


def accuracy_against_distance(
    ours: Mapping[str, tuple[float, float]], papers: Mapping[str, tuple[float, float]], name: str, scale: str
) -> Figure:
    """Linear accuracy over the distance of samples, (distance, accuracy) by row; the paper's, if any, in a panel of its own."""
    from matplotlib.ticker import LogLocator

    figure = new_figure(
        5 * (1 + bool(papers)), max(3.6, min(6, 1.5 * ROW_HEIGHT * len(ours)), ROW_HEIGHT / 2 * len(ours))
    )
    panels = [(ours, f'ours: {scale}', name, PALETTE[0])]
    panels += [(papers, "the paper's: ImageNet", 'FID-50K', GREY)] if papers else []
    for axes, (points, title, xlabel, color) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        axes.plot(*zip(*points.values(), strict=True), 'o', markersize=4, color=color)
        axes.set_title(title, fontsize=9)
        axes.set(xlabel=f'{xlabel} (lower is better)', ylabel='linear probe, top-1 (%)', xscale='log')
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter('{x:g}')
        axes.xaxis.set_minor_formatter('')
        axes.margins(x=0.25, y=0.1)
        axes.grid(linewidth=0.3)
        _label_points(axes, points)
    return figure


def _label_points(axes: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Names beside points, at the first of four sides where a name covers no other; where there is none, none is written."""
    from matplotlib.transforms import Bbox

    axes.figure.draw_without_rendering()  # places depend on the layout
    places = axes.transData.transform(list(points.values()))
    taken: list[Bbox] = []
    for (name, point), (x, y) in zip(points.items(), places, strict=True):
        for right, up in product((1, 0), (1, 0)):
            offset = dict(xytext=(3 if right else -3, 3 if up else -3), textcoords='offset points')
            sides = dict(ha='left' if right else 'right', va='bottom' if up else 'top')
            label = axes.annotate(name, point, fontsize=6, **offset, **sides)
            box = label.get_window_extent().expanded(1.12, 1.1)  # letters are wider at fewer dots an inch, as in SVG
            others = [*taken, *(Bbox.from_extents(u - 3, v - 3, u + 3, v + 3) for u, v in places if (u, v) != (x, y))]
            if (
                axes.bbox.contains(box.x1, box.y0)
                and axes.bbox.contains(box.x0, box.y1)
                and not box.count_overlaps(others)
            ):
                taken.append(box)
                break
            label.remove()


def accuracy_curves(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    xlabel: str,
    title: str = '',
    dashed: Collection[str] = (),
    unit: str = ', top-1 (%)',
) -> Figure:
    """Panels by the name of what is measured, each with points (x, accuracy in percent) by the name of their curve,
    some of which are dashed."""
    figure = new_figure(4 * len(panels), 3.2)
    axes_of = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (name, curves) in zip(axes_of, panels.items(), strict=True):
        for label, marker in zip(sorted(curves, key=_numbers_in_order), cycle(MARKERS), strict=False):
            style = '--' if label in dashed else '-'
            axes.plot(*zip(*curves[label], strict=True), style, marker=marker, ms=4, label=label)
        axes.set(xlabel=xlabel, ylabel=f'{name}{unit}')
        if len(ticks := sorted({x for points in curves.values() for x, _ in points})) <= 12:
            axes.set_xticks(ticks)
        axes.set_title(title, fontsize=9)
    axes_of[0].legend(fontsize=7)
    return figure


def _numbers_in_order(label: str) -> list[tuple[int, str]]:
    return [(int(part), '') if part.isdigit() else (0, part) for part in re.split(r'(\d+)', label)]
