# SPDX-License-Identifier: Apache-2.0
"""The table of a comparison: scores, what was chosen, what each method cost, and whether it learned anything."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ldae.config.methods import FACTS
from ldae.utils.files import atomic_write_text, write_json
from ldae.utils.tables import markdown_table, text_table
from ldae.visualization import accuracy_by_encoder, loss_over_steps, save_figure

from .report import METRICS, MeanScore, chosen, made_with, scored_by
from .results import hashes_of, read_log

#: What was chosen on held-out training images.
CHOICES = ('timestep', 'block', 'pooling', 'lr', 'weight_decay', 'held_out', 'at_edge')
TITLES = {name: facts.title for name, facts in FACTS.items()}
LABELS = dict(
    pixels='raw pixels, flattened (a reference)',
    latents="{}'s latents, averaged over tokens",
    untrained='{} encoder, untrained',
    trained='{} encoder, pre-trained',
    foreign='{}, trained elsewhere',
)
SHORT = dict(knn='k-NN', linear='linear')
POOLING = dict(mean='patch mean', cls='class token')


class Entry(NamedTuple):
    """A row of the table: its name, what is scored, and the method that it is of."""

    row: str
    kind: str
    method: str

    @property
    def title(self) -> str:
        """The method's name as papers write it."""
        return TITLES.get(self.method, self.method)

    @property
    def label(self) -> str:
        """The first cell."""
        return LABELS[self.kind].format(self.title)


def summarise_comparison(
    entries: Sequence[dict], names: Sequence[Entry], configs: Mapping[str, set[str]]
) -> dict[str, dict]:
    """By row: its ``entry``, ``label``, ``knn`` and ``linear`` as a :class:`MeanScore`, and its ``entries`` by seed, of those
    lines of the results file whose hashes are among the ``configs`` that each row has now."""
    rows = {}
    for name in names:
        known = set(configs.get(name.row, ()))
        mine = {e['seed']: e for e in entries if e['row'] == name.row and known.intersection(hashes_of(e))}
        if mine:
            mine = {seed: mine[seed] for seed in sorted(mine)}
            scores = {metric: MeanScore.of([e[metric] for e in mine.values()]) for metric in METRICS}
            rows[name.row] = dict(entry=name, label=name.label, entries=mine, **scores)
    return rows


def write_comparison(
    folder: Path,
    rows: Mapping[str, dict],
    command: str,
    configs: Mapping[str, str],
    tried: Mapping[str, Mapping[float, float | None]] | None = None,
    runs: Mapping[str, Path] | None = None,
) -> list[Path]:
    """``comparison.json``, ``comparison.md`` and ``comparison.png``; of a method that learned nothing, ``loss_<name>.png``.

    Args:
        configs: Where each method comes from.
        tried: Held-out accuracies by method and factor of its learning rate; None where training failed.
        runs: Folders by method and seed, ``mae seed 0``.
    """
    files = [folder / f'comparison.{suffix}' for suffix in ('json', 'md', 'png')]
    entries, tried = _all_entries(rows), tried or {}
    made = {key: entries[0].get(key) for key in ('protocol', 'versions', 'device', 'commit')}
    encoders = {name: row_as_json(row) for name, row in rows.items()}
    content = dict(command=command, configs=dict(configs), **made, rates=dict(tried), encoders=encoders)
    write_json(files[0], content)
    curves = {}
    for name in unlearned(rows):
        points = {seed: losses_of((runs or {}).get(f'{name} seed {seed}')) for seed in rows[name]['entries']}
        points = {f'seed {seed}': curve for seed, curve in points.items() if curve}
        if points:
            curves[name] = save_figure(loss_over_steps(points, rows[name]['entry'].title), folder / f'loss_{name}.png')
    atomic_write_text(files[1], comparison_page(rows, command, tried, curves))
    figure = accuracy_by_encoder({row['label']: (row['knn'], row['linear']) for row in rows.values()})
    return [*files[:2], save_figure(figure, files[2]), *curves.values()]


def row_as_json(row: dict) -> dict[str, Any]:
    """A row of ``comparison.json``."""
    entries = row['entries']
    content = dict(label=row['label'])
    for metric in METRICS:
        mean, std = row[metric]
        content[metric] = dict(mean=round(mean, 2), std=None if std is None else round(std, 2))
    content['seeds'] = {
        seed: {key: e[key] for key in (*METRICS, 'attentive') if e.get(key) is not None} for seed, e in entries.items()
    }
    content['chosen'] = {seed: {key: e.get(key) for key in CHOICES} for seed, e in entries.items()}
    newest = entries[max(entries)]
    return content | {key: newest[key] for key in ('timestep', 'epochs', 'cost') if newest.get(key) is not None}


def _all_entries(rows: Mapping[str, dict]) -> list[dict]:
    return [entry for row in rows.values() for entry in row['entries'].values()]


def comparison_page(
    rows: Mapping[str, dict],
    command: str,
    tried: Mapping[str, Mapping[float, float | None]] | None = None,
    curves: Mapping[str, Path] | None = None,
) -> str:
    """The table as a page, with what it says and what it doesn't."""
    titles = list(dict.fromkeys(row['entry'].title for row in rows.values()))
    names = f'{", ".join(titles[:-1])} and {titles[-1]}' if len(titles) > 1 else titles[0]
    what = (
        'Top-1 accuracy in percent on test images, of frozen features; mean ± standard deviation over seeds. Time step, block, '
        "pooling and the linear layer's rate were chosen on held-out training images, row by row. Cost: images seen in training, "
        'floating-point operations of all their forward and backward passes, seconds of one run.'
    )
    parts = [f'# {names}, compared', made_with(_all_entries(rows), command), what, markdown_table(_table(rows))]
    found = '\n'.join(f'* {line}' for line in (*rate_lines(tried or {}, rows), *findings(rows, curves), *shares(rows)))
    return '\n\n'.join([*parts, found] if found else parts) + '\n'


def comparison_table(rows: Mapping[str, dict], tried: Mapping[str, Mapping[float, float | None]] | None = None) -> str:
    """The table for the terminal."""
    lines = [scored_by(_all_entries(rows)), *rate_lines(tried or {}, rows), *findings(rows), *shares(rows)]
    return '\n'.join([text_table(_table(rows)) + '\n', *lines])


def _table(rows: Mapping[str, dict]) -> list[list[str]]:
    header = ['top-1 accuracy, %', 'seeds', 't', f'{_all_entries(rows)[0]["protocol"]["k"]}-NN', 'linear']
    kinds = sorted({kind for entry in _all_entries(rows) for kind in entry.get('attentive') or ()})
    cells = []
    for row in rows.values():
        entries = list(row['entries'].values())
        scores = [str(row['knn']), str(row['linear']), *(attentive(entries, kind) for kind in kinds)]
        cells.append([row['label'], str(len(entries)), chosen(entries), *scores, _pooling(entries), *_cost(entries)])
    names = [f'attentive ({kind})' for kind in kinds]
    return [[*header, *names, 'pooling', 'images seen', 'FLOP', 'seconds'], *cells]


def attentive(entries: Sequence[dict], kind: str) -> str:
    """Mean and deviation of an attentive probe, where all seeds have one."""
    found = [(entry.get('attentive') or {}).get(kind) for entry in entries]
    return '-' if not all(found) else str(MeanScore.of([one['accuracy'] for one in found]))


def _pooling(entries: Sequence[dict]) -> str:
    found = {entry.get('pooling') for entry in entries} - {None}
    return ', '.join(POOLING.get(name, name) for name in sorted(found, reverse=True)) or '-'


def _cost(entries: Sequence[dict]) -> list[str]:
    """Images, operations, seconds of a training."""
    cost = entries[-1].get('cost')
    if not cost:
        return ['-'] * 3
    seconds = [(entry.get('seconds') or {}).get('train') for entry in entries]
    spent = f'{statistics.mean(seconds):.0f}' if all(seconds) else '-'  # a checkpoint doesn't say
    return [f'{cost["images"]:,.0f}', f'{1e9 * cost["images"] * cost["gflop"]:.1e}', spent]


def unlearned(rows: Mapping[str, dict]) -> dict[str, list[str]]:
    """Methods whose encoder isn't better than before its training by more than both deviations together, and by which
    scores."""
    found = {}
    for name, row in rows.items():
        twin = rows.get(f'{name}_untrained')
        if row['entry'].kind == 'trained' and twin:
            worse = [metric for metric in METRICS if not _better(row[metric], twin[metric])]
            found |= {name: worse} if worse else {}
    return found


def _better(one: MeanScore, other: MeanScore) -> bool:
    return one.mean - other.mean > (one.std or 0.0) + (other.std or 0.0)


def findings(rows: Mapping[str, dict], curves: Mapping[str, Path] | None = None) -> list[str]:
    """A line for each method that doesn't beat its untrained twin."""
    lines = []
    for name, metrics in unlearned(rows).items():
        row, twin = rows[name], rows[f'{name}_untrained']
        shown = ', '.join(f'{SHORT[metric]} {row[metric]} against {twin[metric]}' for metric in metrics)
        curve = (curves or {}).get(name)
        loss = f'; its loss: ![loss]({curve.name})' if curve else ''
        lines.append(f'{row["entry"].title} does not beat its untrained twin: {shown}{loss}')
    return lines


def rate_lines(tried: Mapping[str, Mapping[float, float | None]], rows: Mapping[str, dict]) -> list[str]:
    """A line for each method whose learning rate was chosen."""
    lines = []
    for name, found in tried.items():
        title = TITLES.get(name, name)
        if len(found) == 1:
            lines.append(f'{title}: learning rate x {next(iter(found)):g}; no other was tried')
        elif any(value is not None for value in found.values()):
            best = max(found, key=lambda rate: -1.0 if found[rate] is None else found[rate])
            scores = {rate: 'failed' if value is None else f'{value:.1f}' for rate, value in sorted(found.items())}
            shown = ', '.join(f'x {rate:g}: {score}' for rate, score in scores.items())
            edge = '; the best is at the edge of what was tried' if best in (min(found), max(found)) else ''
            lines.append(
                f'{title}: learning rate x {best:g}, by held-out training images of the first seed ({shown}){edge}'
            )
    return lines


def shares(rows: Mapping[str, dict]) -> list[str]:
    """A line about the time that the scores took, beside that of the trainings."""
    scoring = sum((entry.get('seconds') or {}).get('scoring') or 0.0 for entry in _all_entries(rows))
    entries = [
        (name, *one) for name, row in rows.items() if row['entry'].kind == 'trained' for one in row['entries'].items()
    ]
    # Of methods with one config there is one training.
    trained = {(e.get('pretraining') or name, seed): (e.get('seconds') or {}).get('train') for name, seed, e in entries}
    training = sum(seconds or 0.0 for seconds in trained.values())
    if not training:
        return []
    return [f'Training took {training:.0f} s, scoring {scoring:.0f} s, {scoring / (training + scoring):.0%} of both']


def losses_of(run: Path | None) -> list[tuple[int, float]]:
    """Steps and losses that a run has logged, in all its parts."""
    return [(int(entry['step']), entry['loss']) for entry in (read_log(run) if run else ()) if 'loss' in entry]
