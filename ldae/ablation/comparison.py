# SPDX-License-Identifier: Apache-2.0
"""Methods of pre-training side by side: each with its untrained encoder, beside latents and pixels, in one table."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ldae.apis.encoders import CHECKPOINTS, TRANSFORMERS
from ldae.apis.models import MMPRETRAIN, TIMM, get_model
from ldae.config import configs_root, load_config, set_data_root, walk_dicts
from ldae.config.methods import METHODS, method_like, method_of
from ldae.config.reading import LOADERS, read_config
from ldae.config.scale import PAPER
from ldae.config.stored import read_stored_config
from ldae.datasets.roots import absolute_root
from ldae.evaluation.features import num_blocks, resolve_blocks
from ldae.evaluation.probe_data import labels_of_dataset
from ldae.launch.auto import FILENAME, auto_scale, parse_duration
from ldae.launch.batch import whole_batch
from ldae.utils import ConfigError, check_range
from ldae.utils.checkpoints import read_checkpoint

from .comparison_report import Entry, comparison_table, summarise_comparison, write_comparison
from .jobs import POOLINGS, QUICK, Job, Pretraining, Quick, Scoring, check_candidates, fingerprint, plan, relevant
from .results import hashes_of
from .study import Outcome, Study, checked_seeds
from .worker import foreign_encoder, labelled_images

#: The reference, of whose size the other methods are: without and with ``--scale``.
LDAE_CONFIG, AT_SCALE = 'ldae::ldae/demo_fashion-mnist.py', 'ldae::ldae/vit-b_pca_rrc.py'
#: Used as it is, where the reference is the demo's.
MAE_CONFIG = 'ldae::mae/demo_fashion-mnist.py'
DEFAULTS = ('ldae', 'mae')
#: Encoders of other libraries begin so.
LIBRARIES = (TIMM, TRANSFORMERS, MMPRETRAIN)
#: Chosen on held-out training images: time step, block, pooling.
SCORING = Scoring(poolings=POOLINGS)
NAME = re.compile(r'[A-Za-z0-9][\w.-]*')
RESERVED = ('pixels', 'latents', 'tokenizers', 'results.jsonl', 'auto_scale.py')

Source = str | Path | Config | Sequence[str | Path] | None


@dataclass
class Method:
    """One method: a pre-training by ``cfg``, ``checkpoints`` of it, or a ``foreign`` encoder, scored on the images of ``cfg``."""

    name: str
    cfg: Config
    checkpoints: Sequence[Path] | None = None
    foreign: str | None = None

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Names in the table, and what is scored."""
        if self.foreign is not None:
            return [(self.name, 'foreign')]
        latents = 'latents' if self.name == 'ldae' else f'{self.name}_latents'
        has_latents = self.cfg.model.get('tokenizer') is not None
        return [(latents, 'latents')] * has_latents + [(f'{self.name}_untrained', 'untrained'), (self.name, 'trained')]

    @property
    def source(self) -> str:
        """For the files of results."""
        if self.foreign is not None or self.cfg.filename is None:
            return self.foreign or str((self.checkpoints or ['of the size of the first'])[0])
        path = Path(self.cfg.filename)
        return f'ldae::{path.relative_to(root)}' if path.is_relative_to(root := configs_root()) else str(path)


def compare(
    ldae: Source = None,
    mae: Source = None,
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
    methods: Mapping[str, Source] | None = None,
    rates: Sequence[float] = (1.0,),
    **options: Any,
) -> Outcome:
    """Pre-train by several methods with several seeds, or take checkpoints, and score each encoder, the same untrained,
    latents and pixels; write ``results.jsonl``, ``comparison.json``, ``comparison.md`` and pictures. Returns rows by name, as
    :func:`summarise_comparison` gives them.

    Args:
        methods: By name of one's own: a pre-training config (a file, ``ldae::...``, or a config); a checkpoint, or several, for
            the first seeds; an encoder that was trained elsewhere, as :func:`ldae.get_encoder` takes it; or None for a
            method of :data:`ldae.config.methods.METHODS`, of the size, on the images and by the schedule of the first
            config among them, else of the demo's, with ``scale`` of ViT-B and 400 epochs. l-DAE and MAE by default.
        ldae, mae, ldae_checkpoints, mae_checkpoints: The same of these two; checkpoints one a seed, trained by the config.
        work_dir: Runs go to ``<work_dir>/<name>/seed<k>``.
        timesteps, pixels: Candidates for l-DAE's features, instead of the config's own; score the pixels too, once.
        rates: Factors of each pre-training's learning rate: of several, the one whose encoder does best on held-out training
            images at the first seed is taken, method by method.
        options: Of :class:`Study`; the others as of :func:`ldae.config.load_config` (for all configs) and :func:`ldae.ablate`.

    Raises:
        ConfigError: A config or checkpoint that can't be read or doesn't fit the seeds, or methods on different images.
    """
    seeds = checked_seeds(seeds)
    study = Study(Path(work_dir), str(scale or 'the configs') + ('-quick' if quick else ''), **options)

    def load(config: str | Path | Config) -> Config:
        cfg = deepcopy(config) if isinstance(config, Config) else load_config(config, cfg_options, scale, data_root)
        return study.in_precision(whole_batch(cfg) if scale == PAPER else cfg)

    sources = named_sources(methods, ldae, mae, ldae_checkpoints, mae_checkpoints, seeds)
    for name, (source, files) in sources.items():
        if isinstance(source, Config):  # options are for these, too
            sources[name] = load_config(deepcopy(source), cfg_options, scale, data_root), files
    chosen = choose_methods(sources, load, AT_SCALE if scale else LDAE_CONFIG, data_root, cfg_options)
    for method in chosen:
        if timesteps and method.cfg.model.get('tokenizer'):
            method.cfg.timesteps = list(timesteps)
    scored = scoring.quick(QUICK if quick is True else quick) if quick else scoring
    check_rates(rates, scored)
    check_same_images([] if study.dry_run else chosen, scored)
    place = seeds, study.root, quick, scoring, pixels, study.watched, load
    tried = choose_rates(chosen, rates, study, place)
    hashes: dict[str, set[str]] = defaultdict(set)
    folders: dict[str, Path] = {}

    def make_jobs() -> list[Job]:
        jobs = plan_comparison(chosen, *place)
        for job, member in ((one, member) for one in jobs for member in one.members):
            folders[f'{member.row} seed {job.seed}'] = job.folder  # of methods with one config, too
            hashes[member.row].add(member.config)
        return jobs

    def report() -> dict[str, dict]:
        names = [Entry(*row, run.name) for run in runs_of(chosen, pixels) for row in run.rows]
        rows = summarise_comparison([entry for entry in study.entries() if entry['seed'] in seeds], names, hashes)
        if rows:
            sources = {method.name: method.source for method in chosen}
            written = ', '.join(p.name for p in write_comparison(study.root, rows, command, sources, tried, folders))
            print(f'\n{comparison_table(rows, tried)}\n\nWrote {written} to {study.root}', flush=True)
        return rows

    return study.run(make_jobs, report)


def scale_for(
    scale: str | None, budget: str | None, data_root: str | None, work_dir: str | Path, device: str = 'auto'
) -> str | None:
    """``--scale``, of which ``auto`` becomes a file in the folder of the runs; one that was chosen there before is taken. Raises ConfigError
    if that is of other images."""
    if scale != 'auto':
        if budget is not None:
            raise ConfigError('--budget belongs to --scale auto')
        return scale
    seconds, path = parse_duration(budget or '30m'), Path(work_dir) / FILENAME
    if path.is_file() and data_root and (known := read_config(path).get('data_root')) != absolute_root(str(data_root)):
        raise ConfigError(
            f'{path} was chosen for {known}, not {data_root}: take another --work-dir, or --scale {path} for a scale that is given'
        )
    return str(auto_scale(AT_SCALE, seconds, data_root, work_dir, labelled=True, resume='auto', device=device))


def named_sources(
    methods: Mapping[str, Source] | None,
    ldae: Source,
    mae: Source,
    ldae_checkpoints: Sequence[Path] | None,
    mae_checkpoints: Sequence[Path] | None,
    seeds: Sequence[int],
) -> dict[str, tuple[Source, Sequence[Path] | None]]:
    """Config and checkpoints by the name of a method."""
    given = dict(ldae=(ldae, ldae_checkpoints), mae=(mae, mae_checkpoints))
    for name, (_, files) in given.items():
        if files and len(files) != len(seeds):
            raise ConfigError(
                f'--{name}-checkpoints: {len(files)} checkpoints for {len(seeds)} seeds: name one a seed, in the order of --seeds'
            )
    found = {}
    for name, source in (methods if methods is not None else dict.fromkeys(DEFAULTS)).items():
        if not NAME.fullmatch(name) or name in RESERVED or re.search('_(untrained|latents)$|^comparison[.]', name):
            raise ConfigError(
                f'--method {name}: a method needs a name of letters and digits of its own, as NAME=CONFIG'
            )
        found[name] = (source, None)
    for name, pair in given.items():
        if any(pair):
            if found.get(name, (None, None)) != (None, None):
                raise ConfigError(f'{name} is named twice, by --method and by --{name} or --{name}-checkpoints')
            found[name] = pair
    for name, (source, files) in found.items():
        several = [source] if isinstance(source, str | Path) else source
        if several and not isinstance(several, Config) and files is None and all(map(_is_checkpoint, several)):
            found[name] = (None, [str(one) for one in several])
        elif isinstance(source, list | tuple):
            raise ConfigError(
                f'{name}: several configs, or a checkpoint that is not there: {", ".join(map(str, source))}'
            )
        for file in found[name][1] or ():
            if not str(file).startswith(LIBRARIES) and not Path(file).is_dir():
                read_checkpoint(file)
        if len(found[name][1] or ()) > len(seeds):
            raise ConfigError(f'{name}: {len(found[name][1])} checkpoints for {len(seeds)} seeds: name one a seed')
    return found


def _is_checkpoint(source: str | Path) -> bool:
    """Whether a source is an encoder that was trained before, and not a config."""
    path = Path(source)
    if str(source).startswith(LIBRARIES):
        return True
    return path.suffix != '.py' and (path.exists() or path.suffix in CHECKPOINTS)


def choose_methods(
    sources: Mapping[str, tuple[Source, Sequence[Path] | None]],
    load: Callable[[str | Path | Config], Config],
    default: str = LDAE_CONFIG,
    data_root: str | None = None,
    cfg_options: dict | None = None,
) -> list[Method]:
    """The methods, those without a source of the size and on the images of the first that has a config, else of ``default``."""

    def stored(checkpoint: Path) -> Config | None:
        meta = read_checkpoint(checkpoint).get('meta')
        if not isinstance(meta, dict) or 'cfg' not in meta:
            return None
        cfg = read_stored_config(meta['cfg'], checkpoint)
        cfg.merge_from_dict(dict(cfg_options or {}))
        if data_root is not None:
            set_data_root(cfg, data_root)
        return load(cfg)

    found: dict[str, Method | None] = {}
    for name, (source, files) in sources.items():
        cfg = None
        if source is not None:
            cfg = load(source)
        elif files and not str(files[0]).startswith(LIBRARIES) and Path(files[0]).is_file():
            cfg = stored(files[0])
        model = {} if cfg is None else cfg.get('model') or {}
        is_classifier = not files and str(model.get('type')).endswith('Classifier')
        if cfg is not None and (not model.get('backbone') or is_classifier):
            raise ConfigError(
                f'{name}: {cfg.filename or files[0]} is not a pre-training: its model is a {model.get("type")}'
            )
        if cfg is not None and name in METHODS and method_of(cfg) not in (name, None):
            raise ConfigError(
                f'--method {name}: {cfg.filename or files[0]} is a pre-training by {method_of(cfg)}: give it that name, or one '
                'of your own'
            )
        found[name] = cfg and Method(name, cfg, [Path(file) for file in files] if files else None)
    reference = next((method.cfg for method in found.values() if method), None)
    is_default = reference is None
    if is_default:
        reference = load(default)
    for name, (_, files) in sources.items():
        if found[name]:
            continue
        if files:
            if len(files) > 1:
                raise ConfigError(
                    f'{name}: several encoders that were trained elsewhere: name each as a method of its own'
                )
            found[name] = Method(name, deepcopy(reference), foreign=str(files[0]))
        else:
            is_demo = is_default and default == LDAE_CONFIG
            twin = next((one for one in found.values() if one and one.cfg is reference and not one.checkpoints), None)
            found[name] = _of_same_size(name, reference, load, is_demo, twin)
    return [method for method in found.values() if method]


def _of_same_size(
    name: str, reference: Config, load: Callable, is_demo: bool, twin: Method | None = None
) -> Method | None:
    """A method of the toolbox like the reference, which ``twin`` trains; None, said, where there can be none."""
    if name not in METHODS:
        known = ', '.join(METHODS)
        raise ConfigError(
            f'--method {name}: not one of {known}; a method of your own is named as {name}=CONFIG_OR_CHECKPOINT'
        )
    if method_of(reference) == name:
        if twin is not None:
            raise ConfigError(
                f'--method {name}: {twin.name} is {name} too, by a config of its own, which would be trained once and shown under both '
                f'names: say which config it is compared with, as in {name}=CONFIG'
            )
        return Method(name, reference)
    if is_demo and name == 'mae':
        return Method(name, load(MAE_CONFIG))
    derived = method_like(name, reference, load_config(METHODS[name]))
    if derived is None:
        print(f'The reference is trained on latents, of which there is no {name}: name one with --method {name}=CONFIG')
        return None
    return Method(name, load(derived))


def check_same_images(methods: Sequence[Method], scoring: Scoring) -> None:
    """Raise :class:`ConfigError` unless all methods can be scored, and on the same images: before anything is trained."""
    seen: dict[str, Any] = {}
    first = None
    for method in methods:
        cfg = deepcopy(method.cfg)
        key = fingerprint(relevant(_without_pipelines([cfg.get(name) for name in LOADERS])), method.foreign)
        if key in seen and not method.checkpoints:
            continue
        try:
            for checkpoint in method.checkpoints or ():  # whether it fits
                get_model(method.cfg, checkpoint, 'cpu')
            if method.foreign is None:
                check_candidates(method.cfg, scoring)
            else:
                resolve_blocks(num_blocks(foreign_encoder(method.foreign, 'cpu')), scoring.blocks)
            loaders = labelled_images(cfg, scoring.as_dict())
        except ConfigError as error:
            raise ConfigError(f'{method.name}: {error}') from error
        labels = [labels_of_dataset(loader.dataset) for loader in loaders]
        seen[key] = [(len(loader.dataset), label) for loader, label in zip(loaders, labels, strict=True)]
        first = first or (method.name, seen[key])
        if not all(_same(*pair) for pair in zip(first[1], seen[key], strict=True)):
            counts = [' and '.join(f'{count:,}' for count, _ in images) for images in (first[1], seen[key])]
            raise ConfigError(
                f'{method.name} would be scored on other images than {first[0]} ({counts[1]} training and test images, not '
                f'{counts[0]}, or others of the classes): give all the same --data-root, or configs of the same data'
            )


def _same(one: tuple, other: tuple) -> bool:
    (count, labels), (other_count, other_labels) = one, other
    return count == other_count and (labels is None or other_labels is None or bool((labels == other_labels).all()))


def _without_pipelines(loaders: list) -> list:
    loaders = deepcopy([loader and loader.get('dataset') for loader in loaders])
    for node in walk_dicts(loaders):
        for key in ('pipeline', 'crop_scale', 'flip', 'indices', 'views'):
            node.pop(key, None)
    return [dict(loader) if loader else None for loader in loaders]


def check_rates(rates: Sequence[float], scoring: Scoring) -> None:
    """Raise :class:`ConfigError` for factors that are none, or of which none could be chosen."""
    for rate in rates:
        check_range('--rates', rate, 1e-6, 1e6)
    if len(set(rates)) > 1 and not scoring.protocol.has_choice:
        raise ConfigError(
            '--rates are chosen by held-out images, and a single setting of the linear layers holds none out: give several --probe-lrs'
        )


def choose_rates(
    methods: Sequence[Method], rates: Sequence[float], study: Study, place: tuple
) -> dict[str, dict[float, float | None]]:
    """Multiply each config's learning rate by that of ``rates`` whose encoder does best on held-out training images at the
    first seed; the accuracies there, by method and rate, None where training failed."""
    seeds, root, quick, scoring, _, watched, load = place
    trained = [method for method in methods if method.checkpoints is None and method.foreign is None]
    if tuple(rates) == (1.0,) or not trained:
        return {}
    variants = {(method.name, rate): _at_rate(method.cfg, rate) for method in trained for rate in dict.fromkeys(rates)}

    def jobs(of: Mapping[tuple, Config] = variants) -> list[Job]:
        runs = [Pretraining(name, cfg, [(name, 'trained')], note=f' x {rate:g}') for (name, rate), cfg in of.items()]
        return plan(runs, seeds[:1], root, load, quick, scoring, watched)

    study.run(jobs, lambda: None)
    found = [entry for entry in study.entries() if entry['seed'] == seeds[0]]
    entries = {(one['row'], config): one for one in found for config in hashes_of(one)}
    tried: dict[str, dict[float, float | None]] = defaultdict(dict)
    for (name, rate), cfg in variants.items():
        # Planned alone: two methods may have the same config, and then share a job.
        (member,) = (member for job in jobs({(name, rate): cfg}) for member in job.members)
        entry = entries.get((name, member.config))
        tried[name][rate] = entry and (entry.get('held_out') or 0.0)  # None of one that failed
    for method in trained:
        found = {rate: score for rate, score in tried[method.name].items() if score is not None}
        # Nothing: the run to come fails as these did, and says so.
        method.cfg = variants[method.name, max(found, key=found.get) if found else rates[0]]
    return dict(tried)


def _at_rate(cfg: Config, rate: float) -> Config:
    cfg = deepcopy(cfg)
    cfg.optim_wrapper.optimizer.lr *= rate
    return cfg


def plan_comparison(
    methods: Sequence[Method],
    seeds: Sequence[int],
    root: Path,
    quick: bool | Quick = False,
    scoring: Scoring = SCORING,
    pixels: bool = True,
    watched: bool = False,
    load: Callable[[Path], Config] = load_config,
) -> list[Job]:
    """One job a pre-training and seed, all of the first seed before the second; options as of :func:`compare` and
    :func:`ldae.ablation.jobs.plan`."""
    return plan(runs_of(methods, pixels), seeds, root, load, quick, scoring, watched)


def runs_of(methods: Sequence[Method], pixels: bool = True) -> list[Pretraining]:
    """The methods with the rows that each gives; the first that is trained on images gives the pixels."""
    runs = [Pretraining(one.name, one.cfg, one.rows, one.checkpoints, one.foreign) for one in methods]
    for i, run in enumerate(runs if pixels else ()):
        if run.foreign is None and not str(run.cfg.train_dataloader.dataset.get('type')).endswith('LatentDataset'):
            runs[i] = run._replace(rows=[('pixels', 'pixels'), *run.rows])
            break
    return runs
