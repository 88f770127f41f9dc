# SPDX-License-Identifier: Apache-2.0
"""Figures of pictures, as matplotlib figures of their own (no pyplot, no global state, no display needed)."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ldae.utils import ConfigError
from ldae.utils.files import whole_file

from .tiles import check_shown, filters_to_uint8, shown, tile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


#: Of Okabe and Ito, which the colour-blind can tell apart: blue, vermilion, green, purple, orange, sky blue, black, yellow.
PALETTE = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000', '#F0E442')
GREY = '#999999'  # of what is the paper's
#: By which curves differ where they cover each other, and in print without colours.
MARKERS, LINES = 'osD^vP*X<>ph', ('-', '--', ':', '-.')


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, whose curves have the colours of :data:`PALETTE`."""
    # matplotlib takes a while to import, and most runs draw nothing.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    class Coloured(Figure):
        def add_subplot(self, *args, **kwargs) -> Axes:
            axes = super().add_subplot(*args, **kwargs)
            axes.set_prop_cycle(color=PALETTE)
            return axes

        def _repr_png_(self) -> bytes:  # a notebook shows figures by itself only once pyplot is imported
            self.savefig(png := BytesIO(), format='png')
            return png.getvalue()

    figure = Coloured(figsize=(width, height), dpi=150, layout='constrained')
    FigureCanvasAgg(figure)
    return figure


def add_caption(figure: Figure, text: str) -> Figure:
    """The figure with a caption below what it shows, for which it becomes higher; all else stays where it is, names of points too."""
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(text, max(30, int(17 * width)))
    figure.draw_without_rendering()
    bottom, below = figure.get_tightbbox().y0, 0.06 + 0.13 * len(lines)
    figure.set_figheight(whole := height + below)
    figure.get_layout_engine().set(rect=(0, below / whole, 1, height / whole))
    place = 0.5, (below + bottom - 0.06) / whole
    figure.text(*place, '\n'.join(lines), fontsize=6.5, color='#444444', ha='center', va='top', in_layout=True)
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
        figure.savefig(unfinished, bbox_inches='tight', pad_inches=0.04)  # no title is cut off
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
    """Rows of images (C, H, W) in [0, 255], a query and what was found for it, below their labels: green and bold ones are
    the query's own."""
    count, size = len(images[0]), images[0][0].shape
    figure = new_figure(1.0 * count, 1.2 * len(images))
    for row, names, panels in zip(images, labels, figure.subplots(len(images), count, squeeze=False), strict=True):
        for i, (image, name, panel) in enumerate(zip(row, names, panels, strict=True)):
            _show(panel, tile(image.expand(size[0], -1, -1)[None], 1))
            is_own = name == names[0]
            color = 'black' if i == 0 else PALETTE[2] if is_own else PALETTE[1]
            text = name if len(name) <= 14 else f'{name[:13]}…'
            panel.set_title(text, fontsize=6, color=color, pad=2, weight='bold' if is_own else 'normal')
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


def filter_grid(
    basis: Tensor, patch_size: int, in_channels: int, title: str = '', bands: Sequence[int] | None = None
) -> Figure:
    """The tokenizer's filters: rows of V (d, C * p * p) as patches, the most important first (the paper's Figure 4), in the
    bands that are named."""
    return filter_grids({title: basis}, patch_size, in_channels, bands)


def filter_grids(
    bases: Mapping[str, Tensor], patch_size: int, in_channels: int, bands: Sequence[int] | None = None
) -> Figure:
    """The filters of several tokenizers side by side, by their names."""
    check_shown(bands, in_channels)
    grids = [shown(filters_to_uint8(basis, patch_size, in_channels), bands) for basis in bases.values()]
    columns = min(8 if len(grids) == 1 else 4, max(map(len, grids)))
    rows = -(-max(map(len, grids)) // columns)
    size = 0.9 if len(grids) == 1 else 0.5
    figure = new_figure(size * columns * len(grids) + 0.2 * len(grids), size * rows + 0.5)
    for axes, name, filters in zip(figure.subplots(1, len(grids), squeeze=False)[0], bases, grids, strict=True):
        _show(axes, np.pad(tile(filters, columns, background=200), ((1, 1), (1, 1), (0, 0)), constant_values=200), name)
        axes.set_anchor('N')
    return figure


def image_columns(columns: Mapping[str, Tensor], width: float = 1.1) -> Figure:
    """Columns of images (n, C, H, W) in [0, 255], each below its name: a row is one image."""
    count, _, height, edge = next(iter(columns.values())).shape
    lines = 1 + max(name.count('\n') for name in columns)
    figure = new_figure(width * len(columns), 0.25 + 0.15 * lines + 0.94 * width * count * height / edge)
    for axes, (name, images) in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns.items(), strict=True):
        _show(axes, tile(images, 1), name)
    return figure
