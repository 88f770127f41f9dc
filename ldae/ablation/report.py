# SPDX-License-Identifier: Apache-2.0
"""``table.md`` and its pictures: our scores beside the paper's, mean and spread over seeds."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations, groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ldae.config import load_config
from ldae.config.rows import TABLES, Row, list_rows
from ldae.evaluation.protocol import Protocol
from ldae.utils.files import atomic_write_text
from ldae.utils.tables import markdown_table, text_table
from ldae.visualization import (
    accuracy_against_distance,
    accuracy_by_row,
    accuracy_over_dimension,
    accuracy_over_share,
    road,
    save_figure,
)

from .results import without_samples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = ('knn', 'linear')
#: The steps of the paper's trajectory, in its order.
ROAD = (
    *('t1_1_dit-baseline', 't1_2_no-class-conditioning', 't1_3_no-perceptual', 't1_4_no-adversarial'),
    *('t1_5_linear-schedule', 't2_patch-vae_d16', 't2_patch-ae_d16', 't2_pca_d32', 't3_1_predict-clean'),
    *('t3_2_no-input-scaling', 't3_3_image-input', 't3_4_image-output', 't3_5_original-image'),
)
#: The rows between MAE, whose tokens are clean or gone, and l-DAE, which noises all alike; its ends.
AXIS, ENDS = 'axis_', {'axis_mae': 'MAE', 'axis_ldae': 'l-DAE'}
#: The paper's claim: a low-dimensional latent instead of pixels.
CENTRAL_PAIR = ('t2_pca_d32', 'f5_pixel_256')
#: The rows and columns of the rows ``grid_<prediction>_<loss>``.
QUANTITIES = ('clean', 'noise', 'velocity')
AGREES = "in the paper's order by more than both standard deviations together"
REVERSED, WITHIN = 'in the reverse order', 'within the spread'
NOT_JUDGED = 'not judged, since one seed has no spread'


class MeanScore(NamedTuple):
    """Mean and standard deviation over seeds; None for a single one."""

    mean: float
    std: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> MeanScore:
        """Of one value a seed."""
        return cls(statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None)

    def shown(self, form: str) -> str:
        """As text, both in a format."""
        return f'{self.mean:{form}}' + ('' if self.std is None else f' ± {self.std:{form}}')

    def __str__(self) -> str:
        return self.shown('.1f')


class Summary(NamedTuple):
    """All that was measured of a row under the config it was run with last."""

    row: Row
    knn: MeanScore
    linear: MeanScore
    seeds: tuple[int, ...]
    entries: tuple[dict, ...]

    @property
    def distance(self) -> MeanScore | None:
        """Fréchet distance of samples, of the seeds of which some were scored."""
        scored = [entry for entry in self.entries if (entry.get('generation') or {}).get('frechet') is not None]
        # Those of another number or sampler are no part of the mean.
        found = [entry['generation']['frechet'] for entry in scored if entry['config'] == scored[-1]['config']]
        return MeanScore.of(found) if found else None

    @property
    def generation(self) -> dict:
        """The entry of its samples, of the newest seed that has one; else empty."""
        return next((entry['generation'] for entry in reversed(self.entries) if entry.get('generation')), {})

    @property
    def entry(self) -> dict:
        """The newest."""
        return self.entries[-1]


def summarise(rows: Sequence[Row], entries: Sequence[dict]) -> list[Summary]:
    """One summary for each row with results, in the order of ``rows``."""
    summaries = []
    for row in rows:
        mine = [entry for entry in entries if entry['row'] == row.name]
        if mine:
            wanted = without_samples(mine[-1])
            by_seed: dict[int, dict] = {}
            for entry in (one for one in mine if without_samples(one) == wanted):
                by_seed.pop(entry['seed'], None)  # so that the newest is the last
                by_seed[entry['seed']] = entry
            scores = [MeanScore.of([entry[metric] for entry in by_seed.values()]) for metric in METRICS]
            summaries.append(Summary(row, *scores, tuple(sorted(by_seed)), tuple(by_seed.values())))
    return summaries


def scored_by(entries: Sequence[dict]) -> str:
    """A line for below a table: the protocol, and which choices are still at the edge of what was tried."""
    known = [Protocol.of_dict(entry['protocol']) for entry in entries if 'protocol' in entry]
    protocols = sorted(set(map(str, known))) or ['of an earlier version']
    at_edge = sorted({f'{entry["row"]} ({", ".join(entry["at_edge"])})' for entry in entries if entry.get('at_edge')})
    edge = f' At the edge of the values that were tried: {", ".join(at_edge)}.' if at_edge else ''
    return f'Scored by protocol {", ".join(protocols)}.{edge}'


def made_with(entries: Sequence[dict], command: str) -> str:
    """A line: what wrote a page, on which machine, with which versions, by which protocol."""
    devices, commits = ({str(entry.get(key)) for entry in entries} for key in ('device', 'commit'))
    versions = {str((entry.get('versions') or {}).get('torch')) for entry in entries}
    devices, versions, commits = (', '.join(sorted(names)) for names in (devices, versions, commits))
    return f'Written by `{command}` on {devices}, torch {versions}, commit {commits}. {scored_by(entries)}'


def chosen(entries: Sequence[dict]) -> str:
    """The time steps that features were taken at, noisy where that was chosen, and blocks that aren't the last."""
    steps = {entry.get('timestep') for entry in entries} - {None}
    is_choice = any('noisy' in (one or ()) for entry in entries for one in entry.get('candidates') or ())
    noisy = is_choice and [bool(entry.get('transfer_noise')) for entry in entries]
    blocks = {entry.get('block') for entry in entries} - {None, -1}
    shown = ', '.join(map(str, sorted(steps))) or '-'
    shown += f' ({"noisy" if all(noisy) else f"noisy in {sum(noisy)} of {len(noisy)}"})' if noisy and any(noisy) else ''
    return shown + (f' (block {", ".join(map(str, sorted(blocks)))})' if blocks else '')


def write_report(
    folder: Path, summaries: Sequence[Summary], scale: str, command: str, missing: Mapping[Row, str] | None = None
) -> list[Path]:
    """Write ``table.md``, ``accuracy.png``, where tokenizers of several sizes were run ``dimension.png``, of the axis
    from MAE to l-DAE ``axis.png``, and where samples were scored ``generation.png``; ``missing`` rows are in the table with the reason."""
    atomic_write_text(folder / 'table.md', table_page(summaries, scale, command, missing))
    drawn = {'accuracy': draw_rows, 'dimension': draw_dimension, 'axis': draw_axis, 'generation': draw_distance}
    figures = {name: draw(summaries, scale) for name, draw in drawn.items()}
    return [folder / 'table.md', *(save_figure(one, folder / f'{name}.png') for name, one in figures.items() if one)]


def draw_rows(summaries: Sequence[Summary], scale: str) -> Figure:
    """Linear accuracy of all rows, beside the paper's."""
    scores = {summary.row.name: summary.linear for summary in summaries}
    return accuracy_by_row(scores, [summary.row.paper_linear for summary in summaries], scale)


def draw_dimension(summaries: Sequence[Summary], scale: str) -> Figure | None:
    """Linear accuracy over the latent dimension, beside the paper's, where tokenizers of several sizes were run."""
    curves = dimension_curves(summaries)
    return accuracy_over_dimension(curves, scale, paper_curves()) if curves else None


def draw_axis(summaries: Sequence[Summary], scale: str) -> Figure | None:
    """Linear accuracy over the share of tokens noised, a curve a level of noise, from MAE to l-DAE, where several such rows were
    run."""
    curves: dict[str, list[tuple[float, MeanScore]]] = {}
    ends: dict[str, tuple[float, MeanScore]] = {}
    for summary in (one for one in summaries if one.row.name.startswith(AXIS)):
        model = load_config(summary.row.path).model
        level = 'a level that is drawn' if model.noiser.level == 'drawn' else f't = {model.noiser.level}'
        point = 100 * model.noiser.share, summary.linear
        curves.setdefault('hidden' if model.get('masking') else level, []).append(point)
        if summary.row.name in ENDS:
            ends[ENDS[summary.row.name]] = point
    shown = {name: sorted(points) for name, points in curves.items()}
    return accuracy_over_share(shown, ends, scale) if sum(map(len, shown.values())) > 1 else None


def draw_distance(summaries: Sequence[Summary], scale: str) -> Figure | None:
    """Linear accuracy against the Fréchet distance of samples, beside the paper's, where those of several rows were scored."""
    trainings: dict[str, Summary] = {}
    for summary in (one for one in summaries if one.distance is not None):
        trainings.setdefault(summary.entry.get('pretraining') or summary.row.name, summary)  # rows may share one
    sampled = list(trainings.values())
    if len(sampled) < 2:
        return None
    ours = {s.row.name: (s.distance.mean, s.linear.mean) for s in sampled}
    papers = {s.row.name: (s.row.paper_fid, s.row.paper_linear) for s in sampled if s.row.paper_fid is not None}
    return accuracy_against_distance(ours, papers, _distance_name(sampled), scale)


def draw_road(summaries: Sequence[Summary], scale: str) -> Figure | None:
    """The whole road of the paper, from the diffusion transformer to the l-DAE, of which some steps were run."""
    found = {summary.row.name: summary.linear for summary in summaries}
    rows = {row.name: row for row in list_rows()}
    steps = [rows[name] for name in ROAD]
    if not found.keys() & set(ROAD):
        return None
    return road({row.label: (found.get(row.name, (None, None)), row.paper_linear) for row in steps}, scale)


def table_page(summaries: Sequence[Summary], scale: str, command: str, missing: Mapping[Row, str] | None = None) -> str:
    """The page: how it was made, then each table with what its order says."""
    entries = [entry for summary in summaries for entry in summary.entries]
    parts = [
        f'# The deconstruction at scale `{scale}`',
        made_with(entries, command),
        'Ours: top-1 accuracy in percent on the small data of this scale, mean ± standard deviation over seeds, of '
        'frozen, average-pooled features of test images, at a time step t that was chosen on held-out training images '
        "where the scale leaves it open. The paper's: linear probe on ImageNet, one run each, quoted from its tables. The "
        'two can be compared in order and sign only.',
        *_sampled_by(entries),
        *_central_pair(summaries),
    ]
    missing = missing or {}
    for table, group in groupby(summaries, key=lambda summary: summary.row.table):
        group = list(group)
        title = f'## {table}: {TABLES[table]}' if table in TABLES else f'## {table}'
        lacking = [_cells_of_missing(row, why, group) for row, why in missing.items() if row.table == table]
        cells = [_header(group), *lacking, *(_cells(summary, group) for summary in group)]
        parts += [title, *_grids(group), markdown_table(cells, left=2), *_order(group)]
    tables = {summary.row.table for summary in summaries}
    parts += [f'`{row.name}`: {why}' for row, why in missing.items() if row.table not in tables]
    return '\n\n'.join(parts) + '\n'


def _grids(group: Sequence[Summary]) -> list[str]:
    """Accuracy, and distance of samples, over what is predicted and whose error counts, where such rows were run."""
    found = {summary.row.name: summary for summary in group if summary.row.name.startswith('grid_')}
    grids = []
    for figure, title, form in (('linear', 'linear', '.1f'), ('distance', _distance_name(group), '.4g')):
        scores = {name: score.shown(form) for name, one in found.items() if (score := getattr(one, figure))}
        cells = [[row, *(scores.get(f'grid_{row}_{column}', '-') for column in QUANTITIES)] for row in QUANTITIES]
        head = [f'{title}; prediction', *(f'loss of {column}' for column in QUANTITIES)]
        grids += [markdown_table([head, *cells], left=1)] * bool(scores)
    return grids


def row_table(summaries: Sequence[Summary]) -> str:
    """For the terminal."""
    rows = [_header(summaries), *(_cells(summary, summaries) for summary in summaries)]
    entries = [entry for summary in summaries for entry in summary.entries]
    return text_table([[row[0].strip('`'), *row[2:]] for row in rows]) + f'\n\n{scored_by(entries)}'


def _header(group: Sequence[Summary]) -> list[str]:
    entry = group[0].entry
    k = (entry.get('protocol') or entry['probe'])['k']
    ours = [f'ours: {k}-NN', 'ours: linear']
    papers = ["the paper's: linear, ImageNet"]
    if _has_samples(group):
        ours += [f'ours: {_distance_name(group)}']
        papers += ["the paper's: FID-50K"]
    return ['row', '', 'd', 't', *ours, 'seeds', *papers]


def _cells(summary: Summary, group: Sequence[Summary]) -> list[str]:
    row = summary.row
    scores = [str(summary.knn), str(summary.linear)]
    papers = [_of_paper(row.paper_linear)]
    if _has_samples(group):
        distance = summary.distance and summary.distance.shown('.4g')
        scores.append(distance or summary.generation.get('reason', '-'))
        papers.append(_of_paper(row.paper_fid))
    taken = [str(summary.entry.get('latent_dim')), chosen(summary.entries)]
    return [f'`{row.name}`', row.label, *taken, *scores, str(len(summary.seeds)), *papers]


def _cells_of_missing(row: Row, why: str, group: Sequence[Summary]) -> list[str]:
    second = _has_samples(group)
    papers = [_of_paper(row.paper_linear), *([_of_paper(row.paper_fid)] if second else [])]
    return [f'`{row.name}`', row.label, '-', '-', why, *['-'] * (1 + second), '0', *papers]


def _of_paper(figure: float | None) -> str:
    return '-' if figure is None else f'{figure:.1f}'


def _has_samples(group: Sequence[Summary]) -> bool:
    return any(summary.generation for summary in group)


def _distance_name(group: Sequence[Summary]) -> str:
    """The name of the distances of some rows."""
    names = {summary.generation.get('name') for summary in group} - {None}
    return ' or '.join(sorted(names)) or 'Fréchet distance'


def _sampled_by(entries: Sequence[dict]) -> list[str]:
    """How samples were made and compared, for below the page's first lines."""
    found = [entry['generation'] for entry in entries if (entry.get('generation') or {}).get('name')]
    ways = {
        f'{one["samples"]:,} samples ({one["sampler"]}, {one["steps"]} steps) against {one["reference"]:,} training images, '
        f'{one["name"]}'
        for one in found
    }
    if not ways:
        return []
    return [
        f'Samples: {"; ".join(sorted(ways))}. The distance depends on the number of images and on the network that compares them, '
        "and is no FID unless it is called so: the paper's FID-50K stands beside it for its order. One without a deviation is of one seed."
    ]


def _central_pair(summaries: Sequence[Summary]) -> list[str]:
    """How the paper's claim came out, where both of its rows were run."""
    found = {summary.row.name: summary for summary in summaries}
    if not set(CENTRAL_PAIR) <= set(found):
        return []
    ours, other = (found[name] for name in CENTRAL_PAIR)
    return [
        f'**Latents instead of pixels**: `{ours.row.name}` {ours.linear} and `{other.row.name}` {other.linear} (linear): '
        f'{_verdict(ours, other)}. The paper: {ours.row.paper_linear} and {other.row.paper_linear}.'
    ]


def _verdict(better: Summary, worse: Summary) -> str:
    """Of two rows in the paper's order."""
    if better.linear.std is None or worse.linear.std is None:
        return NOT_JUDGED
    return AGREES if beats(better, worse) else REVERSED if beats(worse, better) else WITHIN


def _order(group: Sequence[Summary]) -> list[str]:
    """Where our order is the paper's, and where not, as paragraphs; only rows with a spread are judged."""
    known = [summary for summary in group if summary.row.paper_linear is not None]
    known.sort(key=lambda summary: -summary.row.paper_linear)
    pairs = [(a, b) for a, b in combinations(known, 2) if a.row.paper_linear > b.row.paper_linear]
    counts = Counter(_verdict(*pair) for pair in pairs)
    judged = len(pairs) - counts[NOT_JUDGED]
    if not judged:
        return ['The order of rows is not judged: rows with one seed have no spread.'] if pairs else []
    lines = [
        f'Of {judged} pairs of rows with a spread, {counts[AGREES]} stand {AGREES} (linear), {counts[REVERSED]} '
        f'{REVERSED}, {counts[WITHIN]} {WITHIN}.'
    ]
    if counts[NOT_JUDGED]:
        lines[0] += f' {counts[NOT_JUDGED]} pairs with a row of one seed are not judged.'
    if counts[REVERSED]:
        reversed_here = [
            f'* `{b.row.name}` ({b.linear}) above `{a.row.name}` ({a.linear}); the paper: '
            f'{b.row.paper_linear:.1f} below {a.row.paper_linear:.1f}'
            for a, b in pairs
            if beats(b, a)
        ]
        lines += ['Reversed here:', '\n'.join(reversed_here)]
    return lines


def beats(a: Summary, b: Summary, metric: str = 'linear') -> bool:
    """Whether ``a`` is better by more than both standard deviations together; never so with a single seed."""
    mine, other = getattr(a, metric), getattr(b, metric)
    if mine.std is None or other.std is None:
        return False
    return mine.mean - other.mean > mine.std + other.std


def dimension_curves(summaries: Sequence[Summary]) -> dict[str, list[tuple[int, MeanScore]]]:
    """Linear accuracy over the latent dimension by tokenizer, of Table 2 and Figure 5, where there are at least two."""
    curves: dict[str, dict[int, MeanScore]] = {}
    for summary in summaries:
        name, dim = summary.entry.get('tokenizer'), summary.entry.get('latent_dim')
        if summary.row.table in ('table2', 'figure5') and name and dim:
            curves.setdefault(name.removesuffix('Tokenizer'), {})[dim] = summary.linear
    return {name: sorted(points.items()) for name, points in curves.items() if len(points) > 1}


def paper_curves() -> dict[str, list[tuple[int, MeanScore]]]:
    """The same of the paper's Table 2: at its d, which a small scale doesn't have."""
    curves: dict[str, list[tuple[int, MeanScore]]] = {}
    for row in list_rows('table2'):
        kind, _, dim = row.name.removeprefix('t2_').rpartition('_d')
        name = 'PatchPCA' if kind == 'pca' else kind.title().replace('-', '')
        name = name.replace('Vae', 'VAE').replace('Ae', 'AE')
        curves.setdefault(name, []).append((int(dim), MeanScore(row.paper_linear, None)))
    return curves
