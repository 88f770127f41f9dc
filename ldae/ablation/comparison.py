# SPDX-License-Identifier: Apache-2.0
"""l-DAE beside MAE, their untrained encoders, l-DAE's latents and pixels, in one table."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ldae.apis import load_config_of
from ldae.config import load_config, set_data_root
from ldae.config.benchmarks import mae_like
from ldae.utils import ConfigError
from ldae.utils.checkpoints import read_checkpoint
from ldae.utils.files import atomic_write_text
from ldae.utils.tables import markdown_table, text_table
from ldae.visualization import accuracy_by_encoder, save_figure

from .jobs import SCORING, Job, Pretraining, Quick, Scoring, plan
from .report import METRICS, MeanScore, chosen, made_with, scored_by
from .study import Outcome, Study, checked_seeds

MAE_BASE = 'ldae::mae/vit-b_256_400e.py'
#: The two, on the same images, for --scale.
AT_SCALE = 'ldae::ldae/vit-b_pca_rrc.py', MAE_BASE
LDAE_CONFIG, MAE_CONFIG = 'ldae::ldae/demo_fashion-mnist.py', 'ldae::mae/demo_fashion-mnist.py'
#: What was chosen on held-out training images.
CHOICES = ('timestep', 'block', 'lr', 'weight_decay', 'held_out', 'at_edge')
#: Rows of the table: name, the pre-training it is scored on, what of it is scored, what it is.
ENTRIES = {
    'pixels': ('ldae', 'pixels', 'raw pixels, flattened (a reference)'),
    'latents': ('ldae', 'latents', "l-DAE's latents, averaged over tokens"),
    'ldae_untrained': ('ldae', 'untrained', 'l-DAE encoder, untrained'),
    'ldae': ('ldae', 'trained', 'l-DAE encoder, pre-trained'),
    'mae_untrained': ('mae', 'untrained', 'MAE encoder, untrained'),
    'mae': ('mae', 'trained', 'MAE encoder, pre-trained'),
}


def compare(
    ldae: str | Config | None = None,
    mae: str | Config | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    work_dir: str | Path = 'work_dirs/compare',
    ldae_checkpoints: Sequence[Path] | None = None,
    mae_checkpoints: Sequence[Path] | None = None,
    scale: str | Path | None = None,
    data_root: str | None = None,
    cfg_options: dict | None = None,
    timesteps: Sequence[int] | None = None,
    scoring: Scoring = SCORING,
    pixels: bool = True,
    quick: bool | Quick = False,
    command: str = 'ldae.compare',
    **options: Any,
) -> Outcome:
    """Pre-train l-DAE and MAE with several seeds, or take checkpoints, and score both encoders, the same untrained,
    l-DAE's latents and the pixels; write ``results.jsonl``, ``comparison.json``, ``comparison.md`` and a picture. Returns
    rows by name, as :func:`summarise_comparison` gives them; raises ConfigError for a config that can't be read, or
    checkpoints that don't fit the seeds.

    Args:
        ldae, mae: Pre-training configs: files, ``ldae::...``, or configs. None takes those that the checkpoints hold; without
            checkpoints, the demo's, or with ``scale`` those of ViT-B and 400 epochs with random crops, and beside an l-DAE of one's own an MAE of its size (:func:`mae_like`).
        work_dir: Runs go to ``<work_dir>/<ldae or mae>/seed<k>``.
        ldae_checkpoints, mae_checkpoints: Trained by these configs before, one a seed.
        timesteps, pixels: Candidates for l-DAE's features, instead of the config's own; score the pixels too, once.
        options: Of :class:`Study`; the others as of :func:`ldae.config.load_config` (for both configs) and :func:`ldae.ablate`.
    """
    hashes: dict[str, set[str]] = defaultdict(set)
    seeds, checkpoints = checked_seeds(seeds), dict(ldae=ldae_checkpoints, mae=mae_checkpoints)
    for name, files in checkpoints.items():
        check_one_a_seed(f'--{name}-checkpoints', files, seeds)
    study = Study(Path(work_dir), str(scale or 'the configs') + ('-quick' if quick else ''), **options)

    def load(config: str | Path | Config) -> Config:
        is_loaded = isinstance(config, Config)
        return study.in_precision(deepcopy(config) if is_loaded else load_config(config, cfg_options, scale, data_root))

    defaults = (LDAE_CONFIG, MAE_CONFIG) if scale is None else AT_SCALE
    configs = choose_configs(ldae, mae, ldae_checkpoints, mae_checkpoints, load, data_root, cfg_options, defaults)
    names = {key: str(cfg.filename or (checkpoints[key] or ["as the l-DAE's"])[0]) for key, cfg in configs.items()}
    if timesteps:
        configs['ldae'].timesteps = list(timesteps)

    def make_jobs() -> list[Job]:
        jobs = plan_comparison(configs, seeds, study.root, checkpoints, quick, scoring, pixels, study.watched, load)
        for member in (member for job in jobs for member in job.members):
            hashes[member.row].add(member.config)
        return jobs

    def report() -> dict[str, dict]:
        rows = summarise_comparison([entry for entry in study.entries() if entry['seed'] in seeds], hashes)
        if rows:
            written = ', '.join(path.name for path in write_comparison(study.root, rows, command, names))
            print(f'\n{comparison_table(rows)}\n\nWrote {written} to {study.root}', flush=True)
        return rows

    return study.run(make_jobs, report)


def choose_configs(
    ldae: str | Config | None,
    mae: str | Config | None,
    ldae_checkpoints: Sequence[Path] | None,
    mae_checkpoints: Sequence[Path] | None,
    load: Callable[[str | Path | Config], Config],
    data_root: str | None = None,
    cfg_options: dict | None = None,
    defaults: tuple[str, str] = (LDAE_CONFIG, MAE_CONFIG),
) -> dict[str, Config]:
    """The configs of ``'ldae'`` and ``'mae'``, those that aren't given as :func:`compare` says; no MAE where none can be derived."""

    def stored(checkpoint: Path) -> Config:
        cfg = load_config_of(checkpoint)
        cfg.merge_from_dict(dict(cfg_options or {}))
        if data_root is not None:
            set_data_root(cfg, data_root)
        return load(cfg)

    by_default = ldae is None and not ldae_checkpoints
    configs = dict(ldae=load(ldae or defaults[0]) if ldae or by_default else stored(ldae_checkpoints[0]))
    if mae or by_default and not mae_checkpoints:
        configs['mae'] = load(mae or defaults[1])
    elif mae_checkpoints:
        configs['mae'] = stored(mae_checkpoints[0])
    elif (derived := mae_like(configs['ldae'], load_config(MAE_BASE))) is not None:
        configs['mae'] = load(derived)
    else:
        print('l-DAE is trained on latents, of which there is no MAE: name one with --mae')
    return configs


def plan_comparison(
    configs: Mapping[str, Config],
    seeds: Sequence[int],
    root: Path,
    checkpoints: Mapping[str, Sequence[Path] | None] | None = None,
    quick: bool | Quick = False,
    scoring: Scoring = SCORING,
    pixels: bool = True,
    watched: bool = False,
    load: Callable[[Path], Config] = load_config,
) -> list[Job]:
    """One job a pre-training (``'ldae'`` and ``'mae'``) and seed, all of the first seed before the second; options as of
    :func:`compare` and :func:`ldae.ablation.jobs.plan`."""
    pretrainings = []
    for name, cfg in configs.items():
        rows = [(row, what) for row, (source, what, _) in ENTRIES.items() if source == name]
        rows = [pair for pair in rows if pixels or pair[1] != 'pixels']
        pretrainings.append(Pretraining(name, cfg, rows, (checkpoints or {}).get(name)))
    return plan(pretrainings, seeds, root, load, quick, scoring, watched)


def check_one_a_seed(name: str, checkpoints: Sequence[Path] | None, seeds: Sequence[int]) -> None:
    """Raise :class:`ConfigError` unless there is one readable checkpoint a seed, or none at all."""
    if not checkpoints:
        return
    if len(checkpoints) != len(seeds):
        raise ConfigError(
            f'{name}: {len(checkpoints)} checkpoints for {len(seeds)} seeds: name one a seed, in the order of --seeds'
        )
    for path in checkpoints:
        read_checkpoint(path)


def summarise_comparison(entries: Sequence[dict], configs: Mapping[str, set[str]]) -> dict[str, dict]:
    """By row of :data:`ENTRIES`: its ``label``, ``knn`` and ``linear`` as a :class:`MeanScore`, and its ``entries``
    by seed, of those lines of the results file whose hashes are among the ``configs`` that each row has now."""
    rows = {}
    for name, (*_, label) in ENTRIES.items():
        mine = {e['seed']: e for e in entries if e['row'] == name and e['config'] in configs.get(name, ())}
        if mine:
            mine = {seed: mine[seed] for seed in sorted(mine)}
            scores = {metric: MeanScore.of([e[metric] for e in mine.values()]) for metric in METRICS}
            rows[name] = dict(label=label, entries=mine, **scores)
    return rows


def write_comparison(folder: Path, rows: Mapping[str, dict], command: str, configs: Mapping[str, str]) -> list[Path]:
    """``comparison.json``, ``comparison.md`` and ``comparison.png``."""
    files = [folder / f'comparison.{suffix}' for suffix in ('json', 'md', 'png')]
    entries = _all_entries(rows)
    made = {key: entries[0][key] for key in ('protocol', 'versions', 'device', 'commit')}
    encoders = {name: _row_as_json(row) for name, row in rows.items()}
    content = dict(command=command, configs=dict(configs), **made, encoders=encoders)
    atomic_write_text(files[0], json.dumps(content, indent=2) + '\n')
    atomic_write_text(files[1], comparison_page(rows, command))
    figure = accuracy_by_encoder({row['label']: (row['knn'], row['linear']) for row in rows.values()})
    return [*files[:2], save_figure(figure, files[2])]


def _row_as_json(row: dict) -> dict:
    entries = row['entries']
    content = dict(label=row['label'])
    for metric in METRICS:
        mean, std = row[metric]
        content[metric] = dict(mean=round(mean, 2), std=None if std is None else round(std, 2))
    content['seeds'] = {seed: {metric: e[metric] for metric in METRICS} for seed, e in entries.items()}
    content['chosen'] = {seed: {key: e.get(key) for key in CHOICES} for seed, e in entries.items()}
    newest = entries[max(entries)]
    return content | {key: newest[key] for key in ('timestep', 'epochs') if newest.get(key) is not None}


def _all_entries(rows: Mapping[str, dict]) -> list[dict]:
    return [entry for row in rows.values() for entry in row['entries'].values()]


def comparison_page(rows: Mapping[str, dict], command: str) -> str:
    """The table as a page."""
    what = 'Top-1 accuracy in percent on test images, of frozen, average-pooled features; mean ± standard deviation over seeds.'
    made = made_with(_all_entries(rows), command)
    return '\n\n'.join(['# l-DAE and MAE, compared', made, what, markdown_table(_table(rows))]) + '\n'


def comparison_table(rows: Mapping[str, dict]) -> str:
    """The table for the terminal."""
    return text_table(_table(rows)) + f'\n\n{scored_by(_all_entries(rows))}'


def _table(rows: Mapping[str, dict]) -> list[list[str]]:
    header = ['top-1 accuracy, %', 'seeds', 't', f'{_all_entries(rows)[0]["protocol"]["k"]}-NN', 'linear']
    cells = [
        [row['label'], str(len(entries)), chosen(list(entries.values())), str(row['knn']), str(row['linear'])]
        for row, entries in ((row, row['entries']) for row in rows.values())
    ]
    return [header, *cells]
