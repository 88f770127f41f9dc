# SPDX-License-Identifier: Apache-2.0
"""The page of a report: one file of HTML, which asks for nothing and runs its own script only."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from ldae.ablation.jobs import JOB_FILE, SCORES_FILE
from ldae.ablation.report import METRICS
from ldae.ablation.results import read_scores
from ldae.config.rows import list_rows
from ldae.version import __version__

from .runs import STUDIES, RunFiles, encodable, shown

MOST_PICTURES, LARGEST_PICTURE, MOST_POINTS, MOST_CURVES, MOST_NOTES = 12, 4 << 20, 400, 40, 40
#: Columns of the results of a study, with where they stand in an entry.
COLUMNS = {
    'k-NN': 'knn', 'linear': 'linear', 'held out': 'held_out', 't': 'timestep', 'block': 'block', 'd': 'latent_dim',
    'epochs': 'epochs', 'GFLOP an image': 'cost.gflop', 'images seen': 'cost.images', 'seconds': 'seconds.train',
    'Fréchet distance': 'generation.frechet',
}  # fmt: skip
#: Options of a training that its weights depend on.
OPTIONS = re.compile(r'(model|data_preprocessor|optim_wrapper|param_scheduler|train_cfg|train_dataloader|randomness)\.')
FACTS, SCORES = ('reached', 'hours', 'images seen', 'FLOP'), ('k-NN', 'linear')
MOST_COLUMNS, MOST_ROWS = 40, 1000
#: Curves of one quantity at several time steps share a chart.
OF_TIMESTEP = re.compile(r'(.+)_t(\d+)')
IMAGE = re.compile(r'!\[.*?\]\((.*?)\)')
Cells = Sequence[Sequence[str]]


def document(title: str, runs: Sequence[RunFiles], refresh: int | None = None) -> str:
    """All of it."""
    script, style = (files('ldae.reports').joinpath(f'report.{kind}').read_text() for kind in ('js', 'css'))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    reload = f'<meta http-equiv="refresh" content="{refresh}">' if refresh else ''
    own = {i: run for i, run in enumerate(runs) if not is_part(run, runs)}
    overall = overview(runs)  # which reads each
    for study in own.values():
        study.notes += [
            f'{run.name}: {note}' for run in runs if study_of(run, study) and run.facts for note in run.notes
        ]
    names = ''.join(f'<li><a href="#run{i}">{escape(run.name)}</a> {escape(run.kind)}</li>' for i, run in own.items())
    body = ''.join(f'<section id="run{i}">{section(run)}</section>' for i, run in own.items())
    return encodable(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{rules}">{reload}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><style>{style}</style></head><body><h1>{escape(title)}</h1>'
        f'<p>Written {time.strftime("%Y-%m-%d %H:%M %Z")} by ldae {escape(__version__)}</p>'
        f'{overall}<nav><ul>{names}</ul></nav>{body}<script>{script}</script></body></html>\n'
    )


def is_part(run: RunFiles, runs: Sequence[RunFiles]) -> bool:
    """Whether a training is one of a study, which shows its curves and scores."""
    return run.kind == 'training' and any(study_of(run, other) for other in runs)


def study_of(run: RunFiles, study: RunFiles) -> bool:
    """Whether a training lies in the folder of a study."""
    return study.kind in STUDIES and run.path.resolve().is_relative_to(study.path.resolve())


def section(run: RunFiles) -> str:
    """One run: facts, what differs from its base, its page, curves, pictures, and what is missing."""
    parts = [f'<h2>{escape(run.name)}</h2>', _facts(run.facts)]
    if run.changes:
        rows = [['option', 'in ldae', 'here'], *([key, shown(a), shown(b)] for key, (a, b) in run.changes.items())]
        parts.append(
            f'<details><summary>{len(run.changes)} options differ from {escape(run.config_name)} as ldae has it'
        )
        parts.append(f'</summary>{table(rows)}</details>')
    if run.kind in STUDIES:
        parts.append(results(run))
    if page := run.page:
        parts += markdown(page)
    parts.append(charts(run))
    for file in run.pictures[-MOST_PICTURES:]:
        try:
            parts.append(picture(file.name, file.read_bytes()))
        except OSError as error:
            run.notes.append(f'{file.name} cannot be read ({error.strerror})')
    parts += [picture(name, content) for name, content in run.drawn.items()]
    notes = [*dict.fromkeys(run.notes)]
    notes = notes[:MOST_NOTES] + [f'{len(notes) - MOST_NOTES} more'] * (len(notes) > MOST_NOTES)
    notes = ''.join(f'<li>{escape(note)}</li>' for note in notes)
    return encodable(''.join(parts) + (f'<ul class="notes">{notes}</ul>' if notes else ''))


def _facts(facts: Mapping[str, str]) -> str:
    return '<dl>' + ''.join(f'<dt>{escape(key)}</dt><dd>{escape(value)}</dd>' for key, value in facts.items()) + '</dl>'


def table(rows: Cells, scatter: bool = False) -> str:
    """A table that the script makes sortable; with ``scatter``, a chart of any two of its columns of numbers."""
    header, *body = rows
    head = ''.join(f'<th>{escape(cell)}</th>' for cell in header)
    lines = ''.join('<tr>' + ''.join(f'<td>{escape(cell)}</td>' for cell in row) + '</tr>' for row in body)
    kind = ' class="scatter"' if scatter else ''
    return f'<div class="wide"><table{kind}><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def overview(runs: Sequence[RunFiles]) -> str:
    """All trainings side by side: how far they came, their scores, and the options in which they differ."""
    trained = [run for run in runs if run.kind == 'training']
    if len(trained) < 2:
        return ''
    options = [{key: shown(value) for key, value in run.options.items() if OPTIONS.match(key)} for run in trained]
    keys = dict.fromkeys(key for each in options for key in each)
    differing = [key for key in keys if len({each.get(key, '-') for each in options}) > 1]
    rows = [
        ['run', *FACTS, 'loss', *SCORES, *differing[:MOST_COLUMNS]],
        *(
            [*_numbers(run), *(own.get(key, '-') for key in differing[:MOST_COLUMNS])]
            for run, own in zip(trained, options, strict=True)
        ),
    ]
    scored = [i for i in range(len(rows[0])) if not i or any(row[i] != '-' for row in rows[1:])]
    left = len(differing) - MOST_COLUMNS
    more = f'<p>{left} more options differ.</p>' if left > 0 else ''
    title = f'<h2>{len(trained)} trainings, and the options in which they differ</h2>'
    return title + table([[row[i] for i in scored] for row in rows], scatter=True) + more


def _numbers(run: RunFiles) -> list[str]:
    loss = next((entry['loss'] for entry in reversed(run.log) if 'loss' in entry), None)
    scores = next((s for s in read_scores(run.path / SCORES_FILE) if s['row'] == run.path.parent.name), {})
    facts = [run.facts.get(key, '-') for key in FACTS]
    return [run.name, *facts, _number(loss), *(_number(scores.get(metric)) for metric in METRICS)]


def results(run: RunFiles) -> str:
    """Every result of a study, beside the paper's figure where its row is one of the paper's."""
    papers = {row.name: row.paper_linear for row in list_rows()}
    known = any(papers.get(entry['row']) is not None for entry in run.entries)
    found = [[_at(entry, place) for place in COLUMNS.values()] for entry in run.entries]
    used = [i for i, column in enumerate(zip(*found, strict=True)) if any(value is not None for value in column)]
    header = ['row', 'seed', *(list(COLUMNS)[i] for i in used), *["the paper's linear, ImageNet"] * known]
    rows = [
        [
            entry['row'],
            str(entry['seed']),
            *(_number(values[i]) for i in used),
            *[_number(papers.get(entry['row']))] * known,
        ]
        for entry, values in zip(run.entries, found, strict=True)
    ]
    title = f'<details open><summary>{len(rows)} results, one a row and seed</summary>'
    return f'{title}{table([header, *rows], scatter=True)}</details>' if rows else ''


def _at(entry: Mapping[str, Any], place: str) -> Any:
    if (
        place == COLUMNS['seconds'] and entry.get('epochs') is entry.get('cost') is None
    ):  # not trained, in a training's job
        return None
    for key in place.split('.'):
        entry = (entry or {}).get(key)
    return entry


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:.6g}'


def charts(run: RunFiles) -> str:
    """Curves of a training, or the losses of all trainings of a study; what was logged once is a table."""
    groups: dict[str, dict[str, list]] = defaultdict(dict)
    axes, once = {}, [['logged once', 'value']]
    if run.is_trained:
        for name, points in run.curves().items():
            if len(points) < 2:
                once.append([name, _number(points[0][1])])
                continue
            of_timestep = OF_TIMESTEP.fullmatch(name)
            group = of_timestep[1] if of_timestep else name
            groups[group][f't = {of_timestep[2]}' if of_timestep else name] = points
            axes[group] = run.axis_of(name)
    elif run.kind in STUDIES:
        for file in sorted(run.path.glob(f'*/seed*/{JOB_FILE}'))[:MOST_CURVES]:
            part = RunFiles(file.parent, 'training')
            if points := part.curves().get('loss'):
                groups['loss'][part.name] = points
    drawn = ''.join(chart(name, series, axes.get(name, 'step')) for name, series in groups.items())
    return drawn + (table(once) if len(once) > 1 else '')


def chart(title: str, series: Mapping[str, Sequence[tuple[float, float]]], xlabel: str) -> str:
    """Points by the name of their curve, which the script draws."""
    thin = {name: points[:: -(-len(points) // MOST_POINTS)] for name, points in series.items()}
    curves = [dict(name=name, points=points) for name, points in thin.items()]
    data = json.dumps(dict(title=title, xlabel=xlabel, series=curves))
    data = data.replace('&', '\\u0026').replace('<', '\\u003c')
    return f'<figure class="chart"><script type="application/json">{data}</script></figure>'


def picture(name: str, content: bytes) -> str:
    """A PNG inside the page."""
    if len(content) > LARGEST_PICTURE:
        return f'<p>{escape(name)} is too large to be shown</p>'
    data = base64.b64encode(content).decode()
    return f'<figure><img alt="{escape(name)}" src="data:image/png;base64,{data}"><figcaption>{escape(name)}</figcaption></figure>'


def markdown(text: str) -> Iterator[str]:
    """HTML of the blocks that pages of ldae are made of: headings, tables, lists, paragraphs with code and emphasis; pictures are left out."""
    for block in re.split(r'\n{2,}', text.strip()):
        lines = block.splitlines()
        if lines[0].startswith('#'):
            level = min(len(lines[0]) - len(lines[0].lstrip('#')) + 2, 6)
            yield f'<h{level}>{_inline(lines[0].lstrip("# "))}</h{level}>'
        elif lines[0].startswith('|') and len(lines) > 2:
            cells = (re.split(r'(?<!\\)\|', line)[1:-1] for line in (lines[0], *lines[2:MOST_ROWS]))
            yield table([[cell.strip(' `') for cell in line[:MOST_ROWS]] for line in cells])
        elif lines[0].startswith(('* ', '- ')):
            yield '<ul>' + ''.join(f'<li>{_inline(line[2:])}</li>' for line in lines) + '</ul>'
        elif plain := _inline(' '.join(lines)):
            yield f'<p>{plain}</p>'


def _inline(text: str) -> str:
    text = '' if re.fullmatch(IMAGE, text.strip()) else re.sub(IMAGE, r'`\1`', text)  # a name: the picture comes below
    text = escape(text.strip())
    text = re.sub(r'\[(.*?)\]\(.*?\)', r'\1', text)
    return re.sub(r'\*\*(.+?)\*\*', r'<b>\1</b>', re.sub(r'`(.+?)`', r'<code>\1</code>', text))
