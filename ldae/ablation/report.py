# SPDX-License-Identifier: Apache-2.0
"""``table.md`` and its pictures: our scores beside the paper's, mean and spread over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import combinations, groupby
from pathlib import Path
from typing import NamedTuple

from ldae.config.rows import TABLES, Row
from ldae.visualization import accuracy_by_row, accuracy_over_dimension, save_figure

METRICS = ('knn', 'linear')


class Score(NamedTuple):
    """Mean and standard deviation over seeds; None for a single one."""

    mean: float
    std: float | None

    def __str__(self) -> str:
        return f'{self.mean:.1f}' + ('' if self.std is None else f' ± {self.std:.1f}')


class Summary(NamedTuple):
    """All that was measured of a row under the config it was run with last."""

    row: Row
    knn: Score
    linear: Score
    seeds: tuple[int, ...]
    entry: dict


def summarise(rows: Sequence[Row], entries: Sequence[dict]) -> list[Summary]:
    """One summary for each row with results, in the order of ``rows``."""
    summaries = []
    for row in rows:
        mine = [entry for entry in entries if entry['row'] == row.name]
        if mine:
            by_seed = {entry['seed']: entry for entry in mine if entry['config'] == mine[-1]['config']}
            scores = [score_over_seeds([entry[metric] for entry in by_seed.values()]) for metric in METRICS]
            summaries.append(Summary(row, *scores, tuple(sorted(by_seed)), mine[-1]))
    return summaries


def score_over_seeds(values: Sequence[float]) -> Score:
    """Mean and, of several, standard deviation."""
    return Score(statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None)


def write_report(folder: Path, summaries: Sequence[Summary], scale: str, command: str) -> list[Path]:
    """Write ``table.md``, ``accuracy.png`` and, where tokenizers of several sizes were run, ``dimension.png``."""
    path = folder / 'table.md'
    path.write_text(table_page(summaries, scale, command))
    written = [path, save_figure(accuracy_by_row(summaries, scale), folder / 'accuracy.png')]
    curves = dimension_curves(summaries)
    if curves:
        written.append(save_figure(accuracy_over_dimension(curves, scale), folder / 'dimension.png'))
    return written


def table_page(summaries: Sequence[Summary], scale: str, command: str) -> str:
    """The page: how it was made, then each table with what its order says."""
    parts = [f'# The deconstruction at scale `{scale}`', '', *_provenance(summaries, command), '']
    for table, group in groupby(summaries, key=lambda summary: summary.row.table):
        group = list(group)
        parts += [f'## {_title(table)}', '', *_table(group), '', *_order(group), '']
    return '\n'.join(parts).rstrip() + '\n'


def _title(table: str) -> str:
    return f'{table}: {TABLES[table]}' if table in TABLES else table


def _provenance(summaries: Sequence[Summary], command: str) -> list[str]:
    entries = [summary.entry for summary in summaries]

    def values(key: str) -> str:
        return ', '.join(sorted({str(entry.get(key)) for entry in entries}))

    torch_versions = ', '.join(sorted({entry['versions']['torch'] for entry in entries}))
    return [
        f'Written by `{command}` on {values("device")}, torch {torch_versions}, commit {values("commit")}.',
        '',
        'Ours: top-1 accuracy in percent on the small data of this scale, mean ± standard deviation over seeds, of frozen, '
        "average-pooled, standardised features of test images. The paper's: linear probe on ImageNet, one run each, quoted "
        'from its tables. The two can be compared in order and sign only.',
    ]


def _table(group: Sequence[Summary]) -> list[str]:
    k = group[0].entry['probe']['k']
    lines = [
        f"| row | | d | ours: {k}-NN | ours: linear | seeds | the paper's: linear, ImageNet |",
        '|---|---|---:|---:|---:|---:|---:|',
    ]
    for row, knn, linear, seeds, entry in group:
        paper = '-' if row.paper_linear is None else f'{row.paper_linear:.1f}'
        label = getattr(row, 'label', '')
        lines.append(
            f'| `{row.name}` | {label} | {entry["latent_dim"]} | {knn} | {linear} | {len(seeds)} | {paper} |'
        )
    return lines


def _order(group: Sequence[Summary]) -> list[str]:
    """Where our order is the paper's, and where not."""
    known = [summary for summary in group if summary.row.paper_linear is not None]
    pairs = [
        (a, b) if a.row.paper_linear > b.row.paper_linear else (b, a)
        for a, b in combinations(known, 2)
        if a.row.paper_linear != b.row.paper_linear
    ]
    if not pairs:
        return []
    reversed_pairs = [(a, b) for a, b in pairs if beats(b, a)]
    agreeing = sum(beats(a, b) for a, b in pairs)
    lines = [
        f"Of {len(pairs)} pairs of rows, {agreeing} stand in the paper's order (linear) by more than both standard "
        f'deviations together, {len(reversed_pairs)} in the reverse order, '
        f'{len(pairs) - agreeing - len(reversed_pairs)} within the spread.'
    ]
    if reversed_pairs:
        lines += ['', 'Reversed here:', '']
        lines += [
            f'* `{b.row.name}` ({b.linear}) above `{a.row.name}` ({a.linear}); the paper: '
            f'{b.row.paper_linear:.1f} below {a.row.paper_linear:.1f}'
            for a, b in reversed_pairs
        ]
    return lines


def beats(a: Summary, b: Summary, metric: str = 'linear') -> bool:
    """Whether ``a`` is better by more than both standard deviations together; never so with a single seed."""
    mine, other = getattr(a, metric), getattr(b, metric)
    if mine.std is None or other.std is None:
        return False
    return mine.mean - other.mean > mine.std + other.std


def dimension_curves(summaries: Sequence[Summary]) -> dict[str, list[tuple[int, Score]]]:
    """Linear accuracy over the latent dimension by tokenizer, of Table 2 and Figure 5, where there are at least two."""
    curves: dict[str, dict[int, Score]] = {}
    for summary in summaries:
        if summary.row.table in ('table2', 'figure5'):
            name = summary.entry['tokenizer'].removesuffix('Tokenizer')
            curves.setdefault(name, {})[summary.entry['latent_dim']] = summary.linear
    return {name: sorted(points.items()) for name, points in curves.items() if len(points) > 1}
