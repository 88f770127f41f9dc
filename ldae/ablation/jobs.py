# SPDX-License-Identifier: Apache-2.0
"""What has to be run: one job a pre-training, with the rows that are probed on it; and the tokenizers it waits for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mmengine.config import Config

from ldae.config import configs_root
from ldae.utils import ConfigError

from .fingerprint import fingerprint, pop_transfer, training_part

if TYPE_CHECKING:
    from ldae.config.rows import Row

JOB_FILE, CONFIG_FILE, DONE_FILE, SCORES_FILE, LOG_FILE = (
    'job.json',
    'config.py',
    'done.json',
    'scores.json',
    'log.txt',
)
TOKENIZER_FILE = re.compile(r'work_dirs/(?:.*/)?([^/]+)/tokenizer\.pth')
CHECKPOINTS_A_RUN = 10
#: How features are scored; part of a result's hash.
PROBE = dict(k=20, temperature=0.07, epochs=40, train_images=None, test_images=None)
QUICK_PROBE = dict(k=5, temperature=0.07, epochs=3, train_images=400, test_images=200)
QUICK_IMAGES, QUICK_EPOCHS, QUICK_ITERS = 512, 2, 8


@dataclass(frozen=True)
class Member:
    """A row that is probed on a pre-training, and the hash of all that its scores depend on.

    ``encoder`` is a key of ``worker.ENCODERS``: what of the pre-training is scored.
    """

    row: str
    config: str
    transfer: dict
    encoder: str = 'trained'


@dataclass
class Job:
    """One process: it trains ``cfg`` in ``folder``, then scores its ``members``; a tokenizer has none."""

    name: str
    folder: Path
    key: str
    seed: int
    cfg: Config
    probe: dict
    members: list[Member] = field(default_factory=list)
    after: Job | None = None

    @property
    def weight(self) -> float:
        """Epochs, for the time left; little where only the probe is missing."""
        train_cfg = self.cfg.get('train_cfg') or {}
        is_trained = (self.folder / DONE_FILE).is_file()
        return 1.0 if is_trained else 1.0 + (train_cfg.get('max_epochs') or 10)

    def write(self) -> None:
        """Make the folder that the process is started with."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.cfg.dump(self.folder / CONFIG_FILE)
        members = [vars(member) for member in self.members]
        job = dict(name=self.name, key=self.key, seed=self.seed, probe=self.probe, members=members)
        (self.folder / JOB_FILE).write_text(json.dumps(job, indent=2) + '\n')


def plan_jobs(
    rows: Sequence[Row],
    seeds: Sequence[int],
    root: Path,
    load: Callable[[Path], Config],
    quick: bool = False,
) -> list[Job]:
    """All jobs of some rows: the first seed of every row before the second of any.

    Rows whose configs differ in transfer only (time step, noise) share a job.

    Args:
        rows: What to run.
        seeds: Of pre-training and probe.
        root: Folder of the scale; a run goes to ``<root>/<row>/seed<k>``.
        load: Reads a row's or tokenizer's config and fits it to the scale.
        quick: A few images and steps, to see everything run.

    Raises:
        ConfigError: A row's config cannot be read, or doesn't fit the scale.
    """
    probe = QUICK_PROBE if quick else PROBE
    jobs: dict[tuple[int, str], Job] = {}
    tokenizers: dict[str, Job] = {}
    for row in rows:
        cfg = small_steps(load(row.path)) if quick else load(row.path)
        after = _tokenizer_job(cfg, tokenizers, root, load, quick, probe)
        shared, transfer = split_transfer(cfg)
        key = training_key(shared, after)
        member = Member(row.name, fingerprint(key, transfer, probe), transfer)
        for seed in seeds:
            if (seed, key) not in jobs:
                folder = folder_of(root, row.name, seed, key)
                own = run_config(shared, seed)
                jobs[seed, key] = Job(f'{row.name} seed {seed}', folder, key, seed, own, probe, [], after)
            jobs[seed, key].members.append(member)
    order = {seed: i for i, seed in enumerate(seeds)}
    return [*tokenizers.values(), *sorted(jobs.values(), key=lambda job: order[job.seed])]


def split_transfer(cfg: Config) -> tuple[Config, dict]:
    shared = deepcopy(cfg)
    return shared, pop_transfer(shared.model)


def training_key(cfg: Config, tokenizer: Job | None) -> str:
    part = training_part(cfg)
    if tokenizer is not None:
        # What is in the file counts, not where it lies.
        part['model']['tokenizer']['checkpoint'] = tokenizer.key
    return fingerprint(part)


def _tokenizer_job(
    cfg: Config,
    known: dict[str, Job],
    root: Path,
    load: Callable[[Path], Config],
    quick: bool,
    probe: dict,
) -> Job | None:
    """The job that trains the tokenizer a config names, whose file the config is pointed to."""
    match = TOKENIZER_FILE.fullmatch(str(cfg.model.get('tokenizer', {}).get('checkpoint') or ''))
    if match is None:
        return None
    name = match[1]
    if name not in known:
        path = configs_root() / 'tokenizers' / f'{name}.py'
        if not path.is_file():
            raise ConfigError(f'tokenizer {name}: there is no {path} that trains it')
        own = small_steps(load(path)) if quick else load(path)
        key = fingerprint(training_part(own))
        folder = root / 'tokenizers' / f'{name}-{key}'
        known[name] = Job(f'tokenizer {name}', folder, key, 0, run_config(own, 0), probe)
    cfg.model.tokenizer.checkpoint = str((known[name].folder / 'tokenizer.pth').resolve())
    return known[name]


def folder_of(root: Path, row: str, seed: int, key: str) -> Path:
    """Where this pre-training is, be it finished, broken off or not begun, and whichever row began it."""
    for file in sorted(root.glob(f'*/seed{seed}*/{JOB_FILE}')):
        if read_json(file).get('key') == key:
            return file.parent
    folder = root / row / f'seed{seed}'
    occupant = read_json(folder / JOB_FILE).get('key')
    # Another config of the same row was run before: it keeps its folder.
    return folder if occupant is None else folder.with_name(f'seed{seed}-{key}')


def run_config(cfg: Config, seed: int) -> Config:
    """A run's own config: its seed, and no looks at it while it trains, since the probe comes at its end."""
    cfg = deepcopy(cfg)
    cfg.setdefault('randomness', {})
    cfg.randomness.seed = seed
    hooks = cfg.setdefault('default_hooks', {})
    for name in ('online_evaluation', 'online_knn', 'pictures', 'progress_bar'):
        hooks.pop(name, None)
    epochs = (cfg.get('train_cfg') or {}).get('max_epochs')
    checkpoint = hooks.setdefault('checkpoint', dict(type='CheckpointHook'))
    # Two: the newer one may turn out not to be readable.
    checkpoint.update(max_keep_ckpts=2, save_last=True)
    if epochs:
        checkpoint.update(interval=max(1, epochs // CHECKPOINTS_A_RUN))
    return cfg


def small_steps(cfg: Config) -> Config:
    """``--quick``: a few hundred images, two epochs."""
    cfg.train_dataloader.dataset.indices = QUICK_IMAGES
    if cfg.train_cfg.get('max_iters'):
        cfg.train_cfg.max_iters = QUICK_ITERS
    else:
        cfg.train_cfg.max_epochs = QUICK_EPOCHS
    return cfg


def read_json(path: Path) -> dict:
    """What a file holds; nothing if it isn't there or was cut short."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def rows_of(jobs: Iterable[Job]) -> int:
    """How many scores some jobs give."""
    return sum(len(job.members) for job in jobs)
