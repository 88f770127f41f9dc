# SPDX-License-Identifier: Apache-2.0
"""l-DAE beside MAE, their untrained encoders, PCA latents and pixels: what is run, and the table of it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config

from ldae.utils import ConfigError
from ldae.utils.checkpoints import read_checkpoint
from ldae.utils.files import atomic_write_text
from ldae.visualization import accuracy_by_encoder, save_figure

from .fingerprint import fingerprint
from .jobs import DONE_FILE, QUICK_PROBE, Job, Member, folder_of, run_config, small_steps, split_transfer
from .jobs import training_key as key_of
from .report import METRICS, Score, score_over_seeds

#: Rows of the table: name, the pre-training it is scored on, what of it is scored, what it is.
ENTRIES = {
    'pixels': ('ldae', 'pixels', 'raw pixels, flattened (a reference)'),
    'latents': ('ldae', 'latents', "l-DAE's latents, averaged over tokens"),
    'ldae_untrained': ('ldae', 'untrained', 'l-DAE encoder, untrained'),
    'ldae': ('ldae', 'trained', 'l-DAE encoder, pre-trained'),
    'mae_untrained': ('mae', 'untrained', 'MAE encoder, untrained'),
    'mae': ('mae', 'trained', 'MAE encoder, pre-trained'),
}
#: As ``ldae probe`` and the online evaluation score: k-NN by the cosine of features as they are.
COMPARE_PROBE = dict(
    k=20, temperature=0.07, epochs=40, train_images=None, test_images=None, standardised=False
)


def plan_comparison(
    configs: Mapping[str, Config],
    seeds: Sequence[int],
    root: Path,
    checkpoints: Mapping[str, Sequence[Path]] | None = None,
    quick: bool = False,
) -> list[Job]:
    """One job a pre-training and seed; all of the first seed before the second.

    Args:
        configs: Of ``'ldae'`` and ``'mae'``.
        seeds: Of pre-training and probe.
        root: A run goes to ``<root>/<ldae or mae>/seed<k>``.
        checkpoints: Trained by these configs before, one a seed; what has none is trained.
        quick: A few images and steps, to see everything run.
    """
    jobs = []
    for place, seed in enumerate(seeds):
        for name, cfg in configs.items():
            given = (checkpoints or {}).get(name)
            jobs.append(_plan_job(name, cfg, seed, root, given[place] if given else None, quick))
    return jobs


def _plan_job(name: str, cfg: Config, seed: int, root: Path, checkpoint: Path | None, quick: bool) -> Job:
    shared, transfer = split_transfer(cfg)
    if quick:
        small_steps(shared)
    probe = COMPARE_PROBE | (QUICK_PROBE if quick else {})
    key = key_of(shared, None)
    if checkpoint is not None:
        key = fingerprint(key, hashlib.sha256(checkpoint.read_bytes()).hexdigest())
    folder = folder_of(root, name, seed, key)
    members = [
        Member(entry, fingerprint(key, transfer, probe, encoder), transfer, encoder)
        for entry, (source, encoder, _) in ENTRIES.items()
        if source == name
    ]
    job = Job(f'{name} seed {seed}', folder, key, seed, run_config(shared, seed), probe, members)
    if checkpoint is not None:
        folder.mkdir(parents=True, exist_ok=True)
        done = dict(checkpoint=str(checkpoint.resolve()), seconds=0.0)
        atomic_write_text(folder / DONE_FILE, json.dumps(done) + '\n')
    return job


def check_checkpoints(name: str, checkpoints: Sequence[Path] | None, seeds: Sequence[int]) -> None:
    """Raise :class:`ConfigError` unless there is one readable file a seed."""
    if not checkpoints:
        return
    if len(checkpoints) != len(seeds):
        raise ConfigError(
            f'{name}: {len(checkpoints)} checkpoints for {len(seeds)} seeds: name one a seed, in the order of --seeds'
        )
    for path in checkpoints:
        read_checkpoint(path)


def summarise_comparison(entries: Sequence[dict], configs: Mapping[str, str]) -> dict[str, dict]:
    """By row of :data:`ENTRIES`: ``knn`` and ``linear`` as a :class:`Score`, and ``seeds`` with each one's figures.

    Args:
        entries: Lines of the results file.
        configs: The hash that each row has now: what was measured of other configs stays out.
    """
    rows = {}
    for name in ENTRIES:
        mine = {e['seed']: e for e in entries if e['row'] == name and e['config'] in configs.get(name, ())}
        if mine:
            scores = {metric: score_over_seeds([e[metric] for e in mine.values()]) for metric in METRICS}
            seeds = {seed: {metric: mine[seed][metric] for metric in METRICS} for seed in sorted(mine)}
            rows[name] = dict(scores, seeds=seeds, entry=mine[max(mine)])
    return rows


def write_comparison(
    folder: Path, rows: Mapping[str, dict], command: str, configs: Mapping[str, str]
) -> list[Path]:
    """``comparison.json``, ``comparison.md`` and ``comparison.png``."""
    files = [folder / f'comparison.{suffix}' for suffix in ('json', 'md', 'png')]
    atomic_write_text(files[0], json.dumps(as_json(rows, command, configs), indent=2) + '\n')
    atomic_write_text(files[1], comparison_page(rows, command))
    figure = accuracy_by_encoder({label_of(name): row for name, row in rows.items()})
    save_figure(figure, files[2])
    return files


def label_of(name: str) -> str:
    """What a row is."""
    return ENTRIES[name][2]


def as_json(rows: Mapping[str, dict], command: str, configs: Mapping[str, str]) -> dict:
    """All figures, and what made them."""
    first = next(iter(rows.values()))['entry']
    made_with = {key: first[key] for key in ('probe', 'versions', 'device', 'commit')}
    encoders = {
        name: dict(
            label=label_of(name),
            **{metric: _score_as_json(row[metric]) for metric in METRICS},
            seeds=row['seeds'],
            **_of_encoder(name, row['entry']),
        )
        for name, row in rows.items()
    }
    return dict(command=command, configs=dict(configs), **made_with, encoders=encoders)


def _of_encoder(name: str, entry: dict) -> dict:
    """Time step and epochs of what has them."""
    kind = ENTRIES[name][1]
    timestep = dict(timestep=entry['timestep']) if kind in ('trained', 'untrained') else {}
    return timestep | (dict(epochs=entry['epochs']) if kind == 'trained' else {})


def _score_as_json(score: Score) -> dict:
    return dict(mean=round(score.mean, 2), std=None if score.std is None else round(score.std, 2))


def comparison_page(rows: Mapping[str, dict], command: str) -> str:
    """The table as a page."""
    entry = next(iter(rows.values()))['entry']
    probe, versions = entry['probe'], entry['versions']
    lines = [
        '# l-DAE and MAE, compared',
        '',
        f'Written by `{command}` on {entry["device"]}, torch {versions["torch"]}, commit {entry["commit"]}.',
        '',
        'Top-1 accuracy in percent on test images, of frozen, average-pooled features; mean ± standard deviation over '
        'seeds.',
        '',
        f'| features | {probe["k"]}-NN | linear | seeds |',
        '|---|---:|---:|---:|',
    ]
    lines += [
        f'| {label_of(name)} | {row["knn"]} | {row["linear"]} | {len(row["seeds"])} |'
        for name, row in rows.items()
    ]
    return '\n'.join(lines) + '\n'


def comparison_table(rows: Mapping[str, dict]) -> str:
    """The table for the terminal."""
    k = next(iter(rows.values()))['entry']['probe']['k']
    width = max(len(label_of(name)) for name in rows) + 2
    lines = [f'{"top-1 accuracy, %":<{width}}{f"{k}-NN":>14}{"linear":>14}{"seeds":>7}']
    for name, row in rows.items():
        lines.append(
            f'{label_of(name):<{width}}{row["knn"]!s:>14}{row["linear"]!s:>14}{len(row["seeds"]):>7}'
        )
    return '\n'.join(lines)
