# SPDX-License-Identifier: Apache-2.0
"""The figures, as matplotlib figures of their own (no pyplot, no global state, no display needed)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ldae.registry import NOISE_SCHEDULES
from ldae.utils import ConfigError, check_choice
from ldae.utils.files import whole_file

from .tiles import filters_to_uint8, tile

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    # matplotlib takes a while to import, and most runs draw nothing.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout='constrained')
    FigureCanvasAgg(figure)
    return figure


def figure_to_array(figure: Figure) -> np.ndarray:
    """Render as uint8 (H, W, 3)."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def save_figure(figure: Figure, path: str | os.PathLike) -> Path:
    """Write an image file, whole or not at all, making its folder where there is none."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, f'.unfinished{path.suffix}') as unfinished:  # the suffix says the format
        figure.savefig(unfinished)
    return path


def denoising_grid(
    clean: Tensor,
    noisy: Sequence[Tensor],
    denoised: Sequence[Tensor],
    timesteps: Sequence[int],
    sigmas: Sequence[float] | None = None,
) -> Figure:
    """One row an image of ``clean`` (B, C, H, W) in [0, 255], then one such batch noisy and denoised at each time
    step (the paper's last figure); ``timesteps`` and ``sigmas`` are for the captions."""
    if not len(noisy) == len(denoised) == len(timesteps):
        raise ConfigError(f'denoising_grid: {len(noisy)} noisy, {len(denoised)} denoised, {len(timesteps)} timesteps')
    sigmas = sigmas or [None] * len(timesteps)
    num_rows, _, height, width = clean.shape
    figure = new_figure(1.1 * (1 + 2 * len(timesteps)), 0.5 + 1.1 * num_rows * height / width)
    ratios = [width] + [2 * width + 1] * len(timesteps)  # pairs have a gap of one pixel
    panels = figure.subplots(1, len(ratios), width_ratios=ratios, squeeze=False)[0]
    _show(panels[0], tile(clean, 1), 'clean\n')
    for panel, x_t, x_hat, t, sigma in zip(panels[1:], noisy, denoised, timesteps, sigmas, strict=True):
        caption = f't = {t}' if sigma is None else f't = {t},  $\\sigma$ = {sigma:.2f}'
        _show(panel, tile(torch.stack([x_t, x_hat], dim=1).flatten(0, 1), 2), f'{caption}\nnoisy | denoised')
    return figure


def reconstruction_grid(clean: Sequence[Tensor], reconstructed: Sequence[Tensor]) -> Figure:
    """Images (C, H, W) in [0, 255] above what a tokenizer makes of them."""
    clean, reconstructed = torch.stack(list(clean)), torch.stack(list(reconstructed))
    count, _, height, width = clean.shape
    figure = new_figure(1.1 * count, 0.3 + 2.2 * height / width)
    _show(figure.subplots(), tile(torch.cat([clean, reconstructed]), count), 'images, and their reconstructions')
    return figure


def image_rows(rows: Sequence[Tensor], captions: Sequence[str]) -> Figure:
    """Rows of images (n, C, H, W) in [0, 255], each below its caption."""
    count, _, height, width = rows[0].shape
    figure = new_figure(1.1 * count, len(rows) * (0.3 + 1.1 * height / width))
    for panel, images, caption in zip(figure.subplots(len(rows), squeeze=False)[:, 0], rows, captions, strict=True):
        _show(panel, tile(images, count), caption)
    return figure


def retrieval_grid(images: Sequence[Sequence[Tensor]], labels: Sequence[Sequence[str]]) -> Figure:
    """Rows of images (C, H, W) in [0, 255], a query and what was found for it, below their labels: green ones are the
    query's own."""
    count, size = len(images[0]), images[0][0].shape
    figure = new_figure(1.0 * count, 1.2 * len(images))
    for row, names, panels in zip(images, labels, figure.subplots(len(images), count, squeeze=False), strict=True):
        for i, (image, name, panel) in enumerate(zip(row, names, panels, strict=True)):
            _show(panel, tile(image.expand(size[0], -1, -1)[None], 1))
            color = 'black' if i == 0 else 'tab:green' if name == names[0] else 'tab:red'
            panel.set_title(name if len(name) <= 14 else f'{name[:13]}…', fontsize=6, color=color, pad=2)
    return figure


def segmentation_grid(columns: Sequence[tuple[Tensor, Tensor, Tensor]], classes: Sequence[str]) -> Figure:
    """Images (C, H, W) in [0, 255] above their masks (H', W') and predicted masks, of the places of ``classes``; -1 is
    white."""
    from matplotlib import colormaps
    from matplotlib.patches import Patch

    colors = [colormaps['tab20'](i % 20) for i in range(len(classes))]
    table = np.array([color[:3] for color in colors] + [(1.0, 1.0, 1.0)])  # the last for -1
    figure = new_figure(1.4 * len(columns) + 1.2, 4.4)
    panels = figure.subplots(3, len(columns), squeeze=False)
    for column, (image, mask, predicted) in zip(panels.T, columns, strict=True):
        _show(column[0], tile(image[None], 1))
        for panel, one in zip(column[1:], (mask, predicted), strict=True):
            _show(panel, table[one.numpy()])
    for panel, title in zip(panels[:, 0], ('image', 'mask', 'prediction'), strict=True):
        panel.set_title(title, fontsize=8)
    shown = [Patch(color=color, label=name) for color, name in zip(colors, classes, strict=True)][:20]
    figure.legend(handles=shown, loc='outside right upper', fontsize=6)
    return figure


def _show(axes, image: np.ndarray, title: str = '') -> None:
    axes.imshow(image, interpolation='nearest')
    axes.set_title(title, fontsize=8)
    axes.set_axis_off()


def filter_grid(basis: Tensor, patch_size: int, in_channels: int, title: str = '') -> Figure:
    """The tokenizer's filters: rows of V (d, C * p * p) as patches, the most important first (the paper's Figure 4)."""
    filters = filters_to_uint8(basis, patch_size, in_channels)
    num_columns = min(8, len(filters))
    num_rows = -(-len(filters) // num_columns)
    figure = new_figure(0.9 * num_columns, 0.9 * num_rows + 0.3)
    _show(figure.subplots(), tile(filters, num_columns), title)
    return figure


def noise_schedules(names: Sequence[str] = ('ddpm_linear', 'linear_gamma_sq', 'linear_sigma')) -> Figure:
    """Signal gamma_t^2 and noise sigma_t over the time step, for registered schedules."""
    NOISE_SCHEDULES.import_from_location()
    for name in names:
        check_choice('noise_schedules: names', name, NOISE_SCHEDULES.module_dict)
    figure = new_figure(8, 3)
    signal, noise = figure.subplots(1, 2)
    for name in names:
        gamma, sigma = NOISE_SCHEDULES.get(name)()
        signal.plot(gamma**2, label=name)
        noise.plot(sigma, label=name)
    signal.set(xlabel='t', ylabel=r'$\gamma_t^2$')
    noise.set(xlabel='t', ylabel=r'$\sigma_t$')
    signal.legend(fontsize=8)
    return figure


def explained_variance(ratio: Tensor, latent_dim: int | None = None) -> Figure:
    """Share of the patches' variance that the first d components hold, over d; ``latent_dim`` is marked."""
    total = np.cumsum(np.asarray(ratio.detach().cpu()))
    figure = new_figure(4, 3)
    axes = figure.subplots()
    axes.plot(np.arange(1, len(total) + 1), 100 * total)
    axes.set(xlabel='latent dimension d', ylabel='explained variance (%)')
    if latent_dim is not None:
        axes.axvline(latent_dim, color='grey', linewidth=0.8)
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
    axes.plot(steps, losses, color='tab:blue', alpha=0.3, marker='.' if len(losses) < 30 else '')
    axes.plot(steps[window - 1 :], np.convolve(losses, np.full(window, 1 / window), 'valid'), color='tab:blue')
    axes.set(xlabel='step', ylabel='loss' if width == 1 else f'loss, means of {width} steps')
    axes.grid(linewidth=0.3)
    return figure


def loss_over_steps(curves: Mapping[str, Sequence[tuple[int, float]]], title: str = '') -> Figure:
    """Logged losses, as points (step, loss) by the name of their curve."""
    figure = new_figure(5, 3)
    axes = figure.subplots()
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker='.', label=name)
    axes.set(xlabel='step', ylabel='loss', title=title)
    axes.grid(linewidth=0.3)
    axes.legend(fontsize=7)
    return figure
