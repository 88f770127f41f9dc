# SPDX-License-Identifier: Apache-2.0
"""Curves and points of plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ldae.registry import NOISE_SCHEDULES
from ldae.utils import check_choice

from .figures import GREY, LINES, MARKERS, PALETTE, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def noise_schedules(names: Sequence[str] = ('ddpm_linear', 'linear_gamma_sq', 'linear_sigma')) -> Figure:
    """Signal gamma_t^2, noise sigma_t and their ratio gamma_t^2 / sigma_t^2 over the time step, for registered schedules; a
    ratio that is 0 or infinite is left out."""
    NOISE_SCHEDULES.import_from_location()
    for name in names:
        check_choice('noise_schedules: names', name, NOISE_SCHEDULES.module_dict)
    figure = new_figure(10, 3)
    labels = r'$\gamma_t^2$', r'$\sigma_t$', r'signal to noise $\gamma_t^2 / \sigma_t^2$'
    panels = figure.subplots(1, 3)
    for i, name in enumerate(dict.fromkeys(names)):
        gamma, sigma = (table.numpy() for table in NOISE_SCHEDULES.get(name)())
        with np.errstate(divide='ignore'):
            ratio = gamma**2 / sigma**2
        ratio[~np.isfinite(ratio) | (ratio <= 0)] = np.nan
        for axes, values in zip(panels, (gamma**2, sigma, ratio), strict=True):
            axes.plot(values, LINES[i % 4], label=name)
    for axes, label in zip(panels, labels, strict=True):
        axes.set(xlabel='time step t', ylabel=label)
        axes.grid(linewidth=0.3)
    panels[2].set_yscale('log')
    figure.legend(*panels[0].get_legend_handles_labels(), loc='outside upper center', ncols=4, fontsize=8)
    return figure


def explained_variance(ratio: Tensor, latent_dim: int | None = None) -> Figure:
    """Share of the patches' variance that the first d components hold, over d; ``latent_dim`` is marked."""
    from matplotlib.ticker import LogLocator

    total = np.cumsum(np.asarray(ratio.detach().cpu()))
    figure = new_figure(4, 3)
    axes = figure.subplots()
    axes.plot(np.arange(1, len(total) + 1), 100 * total)
    axes.set(xlabel='latent dimension d', ylabel='explained variance (%)', xscale='log')
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter('{x:g}')
    axes.xaxis.set_minor_formatter('')
    axes.grid(linewidth=0.3)
    if latent_dim is not None:
        axes.axvline(latent_dim, color=GREY, linewidth=0.8)
        axes.set_title(f'd = {latent_dim}: {100 * total[latent_dim - 1]:.1f}%', fontsize=9)
    return figure


def loss_curve(losses: np.ndarray, last_step: int, points: int = 500) -> Figure:
    """The loss of the steps up to ``last_step``, over a mean of a tenth of them; of more than ``points`` steps, means of several."""
    width = -(-len(losses) // points)
    losses = losses[len(losses) % width :].reshape(-1, width).mean(1)
    steps = last_step - width * np.arange(len(losses))[::-1]
    window = -(-len(losses) // 10)
    figure = new_figure(5, 3)
    axes = figure.subplots()
    axes.plot(steps, losses, color=PALETTE[0], alpha=0.3, marker='.' if len(losses) < 30 else '')
    axes.plot(steps[window - 1 :], np.convolve(losses, np.full(window, 1 / window), 'valid'), color=PALETTE[0])
    axes.set(xlabel='step', ylabel='loss' if width == 1 else f'loss, means of {width} steps')
    axes.grid(linewidth=0.3)
    return figure


def loss_over_steps(curves: Mapping[str, Sequence[tuple[int, float]]], title: str = '') -> Figure:
    """Logged losses, as points (step, loss) by the name of their curve."""
    figure = new_figure(5, 3)
    axes = figure.subplots()
    for (name, points), style in zip(curves.items(), cycle(LINES), strict=False):
        axes.plot(*zip(*points, strict=True), style, marker='.', label=name)
    axes.set(xlabel='step', ylabel='loss', title=title)
    axes.grid(linewidth=0.3)
    if len(curves) > 1:
        axes.legend(fontsize=7)
    return figure


def bound_curves(timesteps: Sequence[int], curves: Mapping[str, Sequence[float]]) -> Figure:
    """Losses over the time step by the name of their curve, on a logarithmic axis."""
    figure = new_figure(5, 3.2)
    axes = figure.subplots()
    for i, (name, losses) in enumerate(curves.items()):
        positive = [loss if loss > 0 else np.nan for loss in losses]
        axes.plot(timesteps, positive, ('-', '--', ':', '-.')[i % 4], marker='.', label=name)
    axes.set(xlabel='time step t', ylabel='weighted loss', yscale='log')
    axes.grid(linewidth=0.3)
    axes.legend(fontsize=7)
    return figure


def embedding(points: np.ndarray, labels: Sequence[str]) -> Figure:
    """Points (n, 2) by label: labels differ in their marker, as in print, and in colour."""
    names = sorted(set(labels))
    styles = {name: (MARKERS[i % 12], PALETTE[(i + i // 24) % 8]) for i, name in enumerate(names[:96])}
    figure = new_figure(5.5, 4)
    axes = figure.subplots()
    for name, (marker, color) in styles.items():
        axes.plot(
            *points[np.asarray(labels) == name].T,
            marker,
            color=color,
            ms=4,
            mew=0.2,
            mec='black',
            alpha=0.8,
            label=name,
        )
    axes.set(xticks=[], yticks=[])
    if len(names) > 1:
        figure.legend(loc='outside right upper', fontsize=7, ncols=1 + len(names) // 25)
    return figure
