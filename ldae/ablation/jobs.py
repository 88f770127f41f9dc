# SPDX-License-Identifier: Apache-2.0
"""Jobs: one a pre-training, with the rows that are scored on it; one a tokenizer that it waits for; and the hashes by which
two are the same."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from mmengine.config import Config

from ldae.config import configs_root
from ldae.config.methods import arch_of, method_of
from ldae.evaluation.attentive_probe import Kind
from ldae.evaluation.features import resolve_blocks
from ldae.evaluation.protocol import PROTOCOL, Protocol
from ldae.utils import ConfigError
from ldae.utils.files import write_json
from ldae.utils.ranges import Choice, check_range, check_value, checked

from .generation import Sampling

JOB_FILE, CONFIG_FILE, LOG_FILE = 'job.json', 'config.py', 'log.txt'
DONE_FILE, SCORES_FILE = 'done.json', 'scores.json'
TOKENIZER_FILE = re.compile(r'work_dirs/(?:.*/)?([^/]+)/tokenizer\.pth')
CHECKPOINTS_A_RUN = 10
#: Hooks that look at a run while it trains; its scores come at its end.
WATCHERS = ('online_evaluation', 'online_knn', 'pictures', 'progress_bar')
#: What of the config counts for encoders that no training here changes: they are scored once, and not per seed.
DATA = ('train_dataloader', 'val_dataloader', 'test_dataloader', 'data_preprocessor')
ONCE = {'pixels': DATA, 'foreign': DATA}
#: How an image's tokens become its features; rows of the paper's tables take the first.
POOLINGS = ('mean', 'cls')


class Quick(NamedTuple):
    """``--quick``: little of everything, to see it run."""

    images: int = 512
    epochs: int = 2
    iters: int = 8
    train_images: int = 400
    test_images: int = 200
    samples: int = 16
    steps: int = 5
    protocol: Protocol = PROTOCOL.replace(k=5, epochs=3)


QUICK = Quick()
#: Of encoders that were trained elsewhere: they have no time step.
FOREIGN_TRANSFER = dict(timestep=None, timesteps=[None], transfer_noise=False)


@checked
@dataclass(frozen=True)
class Scoring:
    """How all rows of a study are scored; part of a result's hash, and written into it.

    Args:
        blocks: The one that does best on held-out training images is taken, row by row; -1 is the last.
        poolings: Likewise, of those that an encoder has: the mean of its patch tokens, or its class token.
        train_images, test_images: At most so many, sampled by class; None takes all.
        per_class: So many of each class all the same.
        attentive: Attentive probes of these kinds too, of the patch tokens of what was chosen.
        sampling: Score samples of the trained models too.
    """

    protocol: Protocol = PROTOCOL
    blocks: tuple[int, ...] = (-1,)
    poolings: tuple[Annotated[str, Choice(*POOLINGS)], ...] = POOLINGS[:1]
    train_images: int | None = None
    test_images: int | None = None
    per_class: int = 0
    attentive: tuple[Kind, ...] = ()
    sampling: Sampling | None = None

    def quick(self, few: Quick) -> Scoring:
        """Of few images, by few epochs."""
        changes = dict(protocol=few.protocol) if self.protocol == PROTOCOL else {}
        limits = dict(train_images=few.train_images, test_images=few.test_images, per_class=2)
        if self.sampling is not None:
            given = self.sampling
            fewer = dict(num=min(given.num, few.samples), steps=min(given.steps, few.steps))
            changes['sampling'] = replace(given, **fewer)
        return replace(self, **limits, **changes)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = dict(vars(self), protocol=self.protocol.as_dict(), blocks=list(self.blocks))
        # Hashes of results go on from when there were none of these.
        for name, default in (('poolings', POOLINGS[:1]), ('attentive', ())):
            value = found.pop(name)
            found |= {name: list(value)} if value != default else {}
        sampling = found.pop('sampling')
        return found if sampling is None else dict(found, sampling=asdict(sampling))


SCORING = Scoring()


class Pretraining(NamedTuple):
    """One run a seed, and what is scored of it: ``'trained'``, ``'untrained'``, ``'latents'``, ``'pixels'`` or ``'foreign'``
    by row."""

    name: str  # of the folder
    cfg: Config
    rows: Sequence[tuple[str, str]]
    checkpoints: Sequence[Path] | None = None  # trained before, one a seed, as far as they go
    foreign: str | None = None  # an encoder that was trained elsewhere, scored on the config's images
    note: str = ''  # said beside the name, of several of one name


@dataclass(frozen=True)
class Member:
    """A row that is scored on a pre-training, and the hash of all that its scores depend on: with samples, and without them, on
    which accuracies don't depend."""

    row: str
    config: str
    transfer: dict
    encoder: str = 'trained'
    without_samples: str = ''


@dataclass
class Job:
    """One process: it trains ``cfg`` in ``folder``, then scores its ``members``; a tokenizer has none."""

    name: str
    folder: Path
    key: str
    seed: int
    cfg: Config
    scoring: Scoring
    members: list[Member] = field(default_factory=list)
    after: Job | None = None
    #: What takes the place of training.
    checkpoint: Path | None = None
    #: Whether it shows itself while it trains.
    watched: bool = False
    #: Where it computes, and in which precision it trains: its config's for None.
    device: str = 'auto'
    precision: str | None = None
    #: That train together, and share its batch.
    processes: int = 1

    @property
    def is_trained(self) -> bool:
        """Whether only the scoring is missing."""
        return bool(read_done(self.folder))

    @property
    def is_complete(self) -> bool:
        """Whether its process has left what it should."""
        file = SCORES_FILE if self.members else 'tokenizer.pth'
        return self.is_trained and (self.folder / file).is_file()

    @property
    def weight(self) -> float:
        """Epochs, for the time left; little where only the scoring is missing."""
        train_cfg = self.cfg.get('train_cfg') or {}
        return 1.0 if self.is_trained else 1.0 + (train_cfg.get('max_epochs') or 10)

    @property
    def content(self) -> dict:
        """The content of its file for the process, beside the config."""
        job = dict(name=self.name, key=self.key, seed=self.seed, watched=self.watched)
        job |= dict(device=self.device, precision=self.precision, processes=self.processes)
        job |= dict(scoring=self.scoring.as_dict(), members=[vars(member) for member in self.members])
        return job

    def write(self) -> None:
        """Make the folder that the process is started with."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.cfg.dump(self.folder / CONFIG_FILE)
        write_json(self.folder / JOB_FILE, self.content)


def plan(
    pretrainings: Iterable[Pretraining],
    seeds: Sequence[int],
    root: Path,
    load: Callable[[Path], Config],
    quick: bool | Quick = False,
    scoring: Scoring = SCORING,
    watched: bool = False,
) -> list[Job]:
    """All jobs: tokenizers before what waits for them, the first seed of every pre-training before the second of any.

    Pre-trainings whose configs differ in transfer only (time step, noise) share a job. A run goes to
    ``<root>/<name>/seed<k>``; ``load`` reads the config of a tokenizer that a config names by the file of its
    training. Raises ConfigError for a tokenizer that no config trains."""
    few = QUICK if quick is True else quick or None
    scoring = scoring if few is None else scoring.quick(few)
    jobs: dict[tuple[int, str], Job] = {}
    tokenizers: dict[str, Job] = {}
    for name, cfg, rows, checkpoints, foreign, note in pretrainings:
        is_given = bool(checkpoints or foreign)
        if foreign is None and rows:
            try:
                check_candidates(cfg, scoring)
            except ConfigError as error:
                raise ConfigError(f'{name}: {error}') from error
        shared = small_steps(deepcopy(cfg), None if is_given else few)
        after = None if is_given else _tokenizer_job(shared, tokenizers, root, load, few, scoring)
        transfer = pop_transfer(shared) if foreign is None else dict(FOREIGN_TRANSFER, foreign=foreign)
        for place, seed in enumerate(seeds):
            if is_given and place >= (1 if foreign else len(checkpoints)):
                break
            checkpoint = Path(foreign or checkpoints[place]) if is_given else None
            key = training_key(shared, after, checkpoint) if foreign is None else content_key(foreign)
            if (seed, key) not in jobs:
                folder, own = folder_of(root, name, seed, key), run_config(shared, seed, watched)
                if folder in {job.folder for job in jobs.values()}:  # another config of this name, that hasn't begun
                    folder = folder.with_name(f'seed{seed}-{key}')
                job = Job(f'{name}{note} seed {seed}', folder, key, seed, own, scoring, [], after, checkpoint, watched)
                jobs[seed, key] = job
                if checkpoint is not None:
                    folder.mkdir(parents=True, exist_ok=True)
                    write_json(folder / DONE_FILE, dict(checkpoint=foreign or str(checkpoint.resolve()), seconds=0.0))
            for row, encoder in rows if place == 0 else [one for one in rows if one[1] not in ONCE]:
                ways = scoring, replace(scoring, sampling=None)
                config, without = (_hash_of(encoder, key, shared, transfer, way) for way in ways)
                jobs[seed, key].members.append(Member(row, config, transfer, encoder, without))
    order = {seed: i for i, seed in enumerate(seeds)}
    return [*tokenizers.values(), *sorted(jobs.values(), key=lambda job: order[job.seed])]


def check_candidates(cfg: Config, scoring: Scoring) -> None:
    """Raise ConfigError, before a method of the toolbox is trained, for blocks or time steps that it doesn't have, and for several
    candidates where the linear layers have one setting, and nothing is held out to choose by."""
    method = method_of(cfg)
    if method is None:
        return
    backbone, neck = cfg.model.backbone, cfg.model.get('neck')
    try:
        depth = arch_of(backbone)[1]['num_layers']
    except (StopIteration, KeyError):  # no ViT: the worker counts its stages
        return
    further = (neck.get('arch') or {}).get('num_layers', depth) if neck and method == 'ldae' else 0
    blocks, steps = resolve_blocks(depth, cfg.get('blocks') or scoring.blocks, further), cfg.get('timesteps') or [None]
    for step in steps if method == 'ldae' else ():
        if step is not None:
            check_range('--timesteps', step, 0, backbone.get('num_timesteps', 1000) - 1, kind=int)
    has_class = method != 'ldae' and backbone.get('with_cls_token', True)
    poolings = scoring.poolings if has_class else POOLINGS[:1]
    if (
        len(blocks) * len(set(steps)) * len(cfg.get('inputs') or [None]) * len(poolings) > 1
        and not scoring.protocol.has_choice
    ):
        raise ConfigError(
            'features are chosen (time step, block, pooling) by held-out images, and a single setting of the linear layers holds none '
            'out: give several --probe-lrs or --probe-weight-decays, or one --timesteps'
        )


def training_key(cfg: Config, tokenizer: Job | None = None, checkpoint: Path | None = None) -> str:
    """The hash of what the weights depend on."""
    part = training_part(cfg)
    if tokenizer is not None:
        # What is in the file counts, not where it lies.
        part['model']['tokenizer']['checkpoint'] = tokenizer.key
    if checkpoint is None:
        return fingerprint(part)
    return fingerprint(fingerprint(part), hashlib.sha256(checkpoint.read_bytes()).hexdigest())


def content_key(foreign: str) -> str:
    """The hash of an encoder that was trained elsewhere: of its name, or of its file or folder's content."""
    path = Path(foreign)
    files = [path] if path.is_file() else sorted(file for file in path.glob('*') if file.is_file())
    return fingerprint([hashlib.sha256(file.read_bytes()).hexdigest() for file in files] or foreign)


def _hash_of(encoder: str, key: str, cfg: Config, transfer: dict, scoring: Scoring) -> str:
    test_images = (cfg.get('val_dataloader') or cfg.get('test_dataloader') or {}).get('dataset')
    of_what = [key, transfer, relevant(test_images)]
    if encoder in ONCE:
        of_what = [relevant({name: cfg.get(name) for name in ONCE[encoder]})]
        of_what += [key] if encoder == 'foreign' else []
    return fingerprint(*of_what, scoring.as_dict(), encoder)


def _tokenizer_job(
    cfg: Config, known: dict[str, Job], root: Path, load: Callable[[Path], Config], few: Quick | None, scoring: Scoring
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
        own = small_steps(load(path), few)
        key = training_key(own)
        folder = root / 'tokenizers' / f'{name}-{key}'
        known[name] = Job(f'tokenizer {name}', folder, key, 0, run_config(own, 0), scoring)
    cfg.model.tokenizer.checkpoint = str((known[name].folder / 'tokenizer.pth').resolve())
    return known[name]


def folder_of(root: Path, row: str, seed: int, key: str) -> Path:
    """Where this pre-training is, be it finished, broken off or not begun, and whichever row began it."""
    for file in sorted(root.glob(f'*/seed{seed}*/{JOB_FILE}')):
        found = read_json(file)
        if (found.get('key'), found.get('seed')) == (key, seed):  # not seed 10 for 1
            return file.parent
    folder = root / row / f'seed{seed}'
    occupant = read_json(folder / JOB_FILE).get('key')
    # Another config of the same row was run before: it keeps its folder.
    return folder if occupant is None else folder.with_name(f'seed{seed}-{key}')


def run_config(cfg: Config, seed: int, watched: bool = False) -> Config:
    """A run's own config: its seed, and, unless it is watched, no looks at it while it trains."""
    cfg = deepcopy(cfg)
    cfg.setdefault('randomness', {})
    cfg.randomness.seed = seed
    hooks = cfg.setdefault('default_hooks', {})
    for name in () if watched else WATCHERS:
        hooks.pop(name, None)
    epochs = (cfg.get('train_cfg') or {}).get('max_epochs')
    checkpoint = hooks.setdefault('checkpoint', dict(type='CheckpointHook'))
    # Two: the newer one may turn out not to be readable.
    kept = -1 if checkpoint.get('max_keep_ckpts') == -1 else 2  # all, where that is asked for
    checkpoint.update(max_keep_ckpts=kept, save_last=True)
    if epochs:
        checkpoint.update(interval=max(1, epochs // CHECKPOINTS_A_RUN))
    return cfg


def small_steps(cfg: Config, few: Quick | None) -> Config:
    """A few hundred images, two epochs; the config as it is for None."""
    if few is None:
        return cfg
    cfg.train_dataloader.dataset.indices = few.images
    if cfg.train_cfg.get('max_iters'):
        cfg.train_cfg.max_iters = few.iters
    else:
        cfg.train_cfg.max_epochs = few.epochs
    return cfg


def read_json(path: Path, **hints: Any) -> dict:
    """The content of a file; nothing if it isn't there, was cut short, or has a value of another type than ``hints``."""
    try:
        content = json.loads(path.read_text())
        for name, hint in hints.items():
            check_value(name, content.get(name), hint)
    except (FileNotFoundError, ValueError, AttributeError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def read_done(folder: Path) -> dict:
    """Name of the checkpoint and seconds that training left in the folder of a job; nothing before."""
    return read_json(folder / DONE_FILE, checkpoint=str | None, seconds=float)


def num_members(jobs: Iterable[Job]) -> int:
    """How many scores some jobs give."""
    return sum(len(job.members) for job in jobs)


TRAINING_KEYS = (
    'model', 'data_preprocessor', 'train_dataloader', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'auto_scale_lr',
    'custom_hooks', 'randomness', 'load_from',
)  # fmt: skip
# How data are fetched and when a run is looked at.
IRRELEVANT = ('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor', 'val_interval', 'val_begin')


def fingerprint(*parts: object) -> str:
    """12 hex digits of nested plain data; the order of keys has no influence."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def training_part(cfg: Config) -> dict:
    """The part of a config that decides which weights come out of training."""
    part = {key: cfg.get(key) for key in TRAINING_KEYS}
    part['randomness'] = _without_seed(part['randomness'])
    hooks = cfg.get('default_hooks', {})
    part['fit_tokenizer'] = hooks.get('fit_tokenizer')
    if keeps_average(cfg):  # others' hashes are those from before there were such rows
        part['ema'] = hooks['ema']
    return relevant(part)


def keeps_average(cfg: Config) -> bool:
    """Whether checkpoints hold an average of the weights beside them, which is then what gets scored."""
    hook = cfg.get('default_hooks', {}).get('ema') or {}
    return hook.get('in_place') is False


def _without_seed(randomness: dict | None) -> dict | None:
    """The run's own seed stands beside the hash."""
    return randomness and {key: value for key, value in randomness.items() if key != 'seed'}


def relevant(node: object) -> object:
    """Nested plain data without the keys that change nothing; a component's seed is left out where it is the default, 0."""
    if isinstance(node, dict):
        kept = {key: value for key, value in node.items() if key not in IRRELEVANT and (key != 'seed' or value)}
        return {key: relevant(value) for key, value in kept.items()}
    if isinstance(node, list | tuple):
        return [relevant(item) for item in node]
    return node


def pop_transfer(cfg: Config) -> dict:
    """Take out of a config what features depend on and pre-training doesn't: the time step, candidates for it where the
    row names none, its own blocks, and whether images are noised, or may be; and say whether they are those of the average of the
    weights."""
    timestep = cfg.model.get('backbone', {}).pop('timestep', None)
    candidates = cfg.pop('timesteps', None) or [timestep]
    own = {name: list(value) for name in ('blocks', 'inputs') if (value := cfg.pop(name, None))}
    average = dict(ema=True) if keeps_average(cfg) else {}
    noise = cfg.model.pop('transfer_noise', False)
    return dict(timestep=timestep, timesteps=list(candidates), transfer_noise=noise, **average, **own)
