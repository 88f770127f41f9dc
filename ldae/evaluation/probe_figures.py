# SPDX-License-Identifier: Apache-2.0
"""The result of a probe: as a table, as JSON, as a page and as pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldae.utils.files import atomic_write_text
from ldae.utils.tables import markdown_table, text_table
from ldae.visualization import accuracy_curves, save_figure

from .probe import ProbeRow, ProbeScores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILES = ('probe.json', 'probe.md', 'accuracy_over_timestep.png', 'accuracy_over_block.png')
JSON_FILE, PAGE_FILE, TIMESTEP_FILE, BLOCK_FILE = FILES


def table_rows(scores: ProbeScores) -> list[list[str]]:
    """Cells, the header's first: what a row is of, what it scores, how its linear layer was trained."""
    header = ['block', 't', 'input', *(f'{k}-NN' for k in scores.rows[0].knn), 'linear', 'held out']
    rows = [[*header, 'setting', '']]
    for row in scores.rows:
        step = '-' if row.timestep is None else str(row.timestep)
        held_out = '-' if row.held_out is None else f'{row.held_out:.1f}'
        figures = [*(f'{value:.1f}' for value in (*row.knn.values(), row.linear)), held_out]
        setting = f'{"" if row.lr is None else f"lr {row.lr:g}, "}wd {row.weight_decay:g}'
        mark = 'chosen' if row is scores.chosen else ''
        rows.append([str(row.block), step, row.input, *figures, setting, mark])
    return rows


def choice_line(scores: ProbeScores) -> str:
    """Which row counts, and why."""
    row = scores.chosen
    if row is None:
        return 'nothing was held out to choose a row by: give several learning rates'
    return (
        f'chosen: {row.place} by held-out training images: {row.held_out:.1f} -> test {row.linear:.1f} '
        f'(protocol {scores.protocol})'
    )


def report(scores: ProbeScores) -> str:
    """For the terminal."""
    return f'{text_table(table_rows(scores), left=0)}\n\n{choice_line(scores)}'


def page(scores: ProbeScores, made_with: dict) -> str:
    """The table as Markdown, with what made it."""
    data, versions, protocol = scores.data, made_with['versions'], scores.protocol
    weights = made_with['checkpoint'] or 'no checkpoint'
    knn = f'{"standardised, " if protocol.standardised_knn else ""}{protocol.metric}'
    parts = [
        f'# Probe of {made_with["model"]}',
        f'{weights}; {data["train_images"]} training and {data["test_images"]} test images of {data["classes"]} classes, '
        f'as test images are prepared; {made_with["device"]}, torch {versions["torch"]}, ldae {versions["ldae"]}.',
        f'Top-1 accuracy in percent of average-pooled features, by protocol {protocol}: k-NN ({knn}), and a linear layer '
        'whose learning rate and weight decay were chosen on held-out training images (its accuracy there: held out).',
        markdown_table(table_rows(scores), left=0),
        f'{choice_line(scores)}.',
    ]
    return '\n\n'.join(parts) + '\n'


def write_probe(folder: Path, scores: ProbeScores, made_with: dict[str, Any]) -> list[Path]:
    """``probe.json``, ``probe.md``, and a picture over time steps and over blocks where there are several."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)  # pictures of another probe
    written = []
    if len({row.timestep for row in scores.rows}) > 1:
        written.append(save_figure(accuracy_over_timestep(scores.rows), folder / TIMESTEP_FILE))
    if len({row.block for row in scores.rows}) > 1:
        written.append(save_figure(accuracy_over_block(scores.rows), folder / BLOCK_FILE))
    atomic_write_text(folder / PAGE_FILE, page(scores, made_with))
    content = dict(made_with, results=[asdict(row) for row in scores.rows])
    content['chosen'] = None if scores.chosen is None else asdict(scores.chosen)
    atomic_write_text(folder / JSON_FILE, json.dumps(content, indent=2) + '\n')
    return [folder / JSON_FILE, folder / PAGE_FILE, *written]


def accuracy_over_timestep(rows: Sequence[ProbeRow]) -> Figure:
    """Over the fixed t that features are taken at; a curve for clean and noisy input, at the deepest block."""
    deepest = max(row.block for row in rows)
    rows = [row for row in rows if row.block == deepest]
    panels = _panels(rows, lambda row: row.timestep, lambda row: row.input)
    return accuracy_curves(panels, 'time step t of the features', f'block {deepest}', dashed=('noisy',))


def accuracy_over_block(rows: Sequence[ProbeRow]) -> Figure:
    """Over the block that features are taken after; a curve for each time step and kind of input."""

    def curve(row: ProbeRow) -> str:
        return row.input if row.timestep is None else f't = {row.timestep}, {row.input}'

    dashed = {curve(row) for row in rows if row.input == 'noisy'}
    return accuracy_curves(_panels(rows, lambda row: row.block, curve), 'block', dashed=dashed)


def _panels(
    rows: Sequence[ProbeRow], x: Callable[[ProbeRow], int], curve: Callable[[ProbeRow], str]
) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Points by curve of linear accuracy, and of k-NN with the smallest k."""
    k = next(iter(rows[0].knn))
    panels = {'linear probe': {}, f'{k}-NN': {}}
    for row in sorted(rows, key=x):
        for points, value in zip(panels.values(), (row.linear, row.knn[k]), strict=True):
            points.setdefault(curve(row), []).append((x(row), value))
    return panels
