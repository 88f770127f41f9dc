# SPDX-License-Identifier: Apache-2.0
"""What ``ldae probe`` has measured: on the terminal, as JSON, as a page and as pictures."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ldae.utils.files import atomic_write_text
from ldae.visualization import accuracy_over_block, accuracy_over_timestep, save_figure

from .cache import FeatureSetting
from .linear_probe import ProbeResult

JSON_FILE, PAGE_FILE, TIMESTEP_FILE, BLOCK_FILE = (
    'probe.json',
    'probe.md',
    'accuracy_over_timestep.png',
    'accuracy_over_block.png',
)
FILES = (JSON_FILE, PAGE_FILE, TIMESTEP_FILE, BLOCK_FILE)


@dataclass(frozen=True)
class ProbeRow:
    """Accuracies in percent of the features after one block, at one time step, of one kind of input."""

    block: int
    timestep: int | None
    input: str
    knn: dict[int, float]
    linear: float
    lr: float | None
    weight_decay: float

    @classmethod
    def of(cls, setting: FeatureSetting, knn: dict[int, float], linear: ProbeResult) -> 'ProbeRow':
        """Of what was measured of one set of features."""
        chosen = linear.setting
        kind = 'noisy' if setting.noisy else 'clean'
        scores = {k: round(value, 2) for k, value in knn.items()}
        accuracy = round(linear.accuracy, 2)
        return cls(setting.block, setting.timestep, kind, scores, accuracy, chosen.lr, chosen.weight_decay)

    def cells(self) -> list[str]:
        """For a table: what it is, then what it scores."""
        step = '-' if self.timestep is None else str(self.timestep)
        chosen = f'{"" if self.lr is None else f"lr {self.lr:g}, "}wd {self.weight_decay:g}'
        scores = [f'{value:.1f}' for value in (*self.knn.values(), self.linear)]
        return [str(self.block), step, self.input, *scores, chosen]


def header(rows: Sequence[ProbeRow]) -> list[str]:
    """Names of the columns."""
    return ['block', 't', 'input', *(f'{k}-NN' for k in rows[0].knn), 'linear', 'chosen']


def text_table(rows: Sequence[ProbeRow]) -> str:
    """For the terminal."""
    lines = [header(rows), *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return '\n'.join(
        '  '.join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    )


def page(rows: Sequence[ProbeRow], made_with: dict) -> str:
    """The table as Markdown, with what made it."""
    data, versions = made_with['data'], made_with['versions']
    weights = made_with['checkpoint'] or 'no checkpoint'
    lines = [
        f'# Probe of {made_with["model"]}',
        '',
        f'{weights}; {data["train_images"]} training and {data["test_images"]} test images of '
        f'{data["classes"]} classes, as test images are prepared; {made_with["device"]}, torch {versions["torch"]}, ldae '
        f'{versions["ldae"]}.',
        '',
        'Top-1 accuracy in percent of average-pooled features: k-NN by cosine, and a linear layer whose learning rate and '
        'weight decay were chosen on held-out training images.',
        '',
        f'| {" | ".join(header(rows))} |',
        '|' + '---:|' * len(header(rows)),
    ]
    lines += [f'| {" | ".join(row.cells())} |' for row in rows]
    return '\n'.join(lines) + '\n'


def write_probe(folder: Path, rows: Sequence[ProbeRow], made_with: dict) -> list[Path]:
    """``probe.json``, ``probe.md``, and a picture over time steps and over blocks where there are several."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)  # pictures of another probe
    written = []
    if len({row.timestep for row in rows}) > 1:
        written.append(save_figure(accuracy_over_timestep(rows), folder / TIMESTEP_FILE))
    if len({row.block for row in rows}) > 1:
        written.append(save_figure(accuracy_over_block(rows), folder / BLOCK_FILE))
    atomic_write_text(folder / PAGE_FILE, page(rows, made_with))
    content = dict(made_with, results=[asdict(row) for row in rows])
    atomic_write_text(folder / JSON_FILE, json.dumps(content, indent=2) + '\n')
    return [folder / JSON_FILE, folder / PAGE_FILE, *written]
