# SPDX-License-Identifier: Apache-2.0
"""An encoder's blocks, time steps and inputs, scored as ``ldae probe`` does."""

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import barrier, get_world_size, is_main_process
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from torch import nn

from ldae.config import load_config, set_data_root, walk_dicts
from ldae.config.packed import use_packed_data
from ldae.config.reading import LOADERS
from ldae.datasets.roots import is_of_hub
from ldae.evaluation.attentive_probe import AttentiveOptions
from ldae.evaluation.corruptions import Corruption, Severity
from ldae.evaluation.further import Further
from ldae.evaluation.probe import FILES, ProbeScores, probe_encoder, write_probe
from ldae.evaluation.protocol import PROTOCOL, Protocol
from ldae.models.tokenizers.fit import fit_tokenizer
from ldae.registry import DATASETS
from ldae.utils import ConfigError, NaturalInt, PositiveInt, Seed, checked, provenance
from ldae.utils.checkpoints import check_is_there, name_of_run, names_of_runs
from ldae.utils.collective import failing_together
from ldae.utils.device import use_device
from ldae.utils.files import write_json
from ldae.utils.ranges import Precision
from ldae.visualization import accuracy_curves, save_figure

from .encoders import encoder_images, get_encoder

#: Of :func:`learning_curves`.
CURVES = ('curves.json', 'curves.png')


@checked
def probe(
    checkpoint: str | Path | None = None,
    config: str | Path | Config | None = None,
    pretrained: bool = False,
    scale: str | None = None,
    cfg_options: dict | None = None,
    data: str | Path | None = None,
    data_root: str | Path | None = None,
    max_train_images: PositiveInt | None = None,
    max_test_images: PositiveInt | None = None,
    blocks: Sequence[int | str] = (-1,),
    timesteps: Sequence[int] | None = None,
    inputs: Sequence[str] = ('clean',),
    k: Sequence[PositiveInt] | None = None,
    protocol: Protocol = PROTOCOL,
    seed: Seed = 0,
    memory: float = 4.0,
    work_dir: str | Path | None = None,
    cache: str | Path | None = None,
    refresh: bool = False,
    verify: bool = False,
    force: bool = False,
    device: str | torch.device = 'auto',
    precision: Precision | None = None,
    ema: bool = False,
    attentive: Sequence[str | AttentiveOptions] = (),
    neighbours: NaturalInt = 0,
    corruptions: Sequence[Corruption] = (),
    severities: Sequence[Severity] = (1, 2, 3, 4, 5),
) -> ProbeScores:
    """Score an encoder by k-NN and linear layers, after several blocks, at several time steps, on clean and noisy input.

    In a distributed run all processes call this, and all get the scores. Raises ConfigError for options or data that
    can't be used, and results that exist.

    Args:
        checkpoint: As of :func:`ldae.get_encoder`; None for untrained weights, or those of ``pretrained``.
        config, pretrained, scale, cfg_options, ema, device, precision: As of :class:`ldae.FeatureExtractor`.
        data, data_root: Config whose images are used, and their folder, instead of the model's own and the config's.
        max_train_images, max_test_images: Of each class in proportion, and at least one; None takes all.
        work_dir, cache: Folders of table and pictures (None: ``work_dirs/probe/<run>_<checkpoint>``) and of features.
        attentive, neighbours, corruptions, severities: Of the chosen features, as of :class:`ldae.evaluation.further.Further`.
        force: Replace a ``probe.json`` that exists. The others are as of :func:`ldae.evaluation.probe.probe_encoder`.
    """
    if checkpoint is None and config is None:
        raise ConfigError('name a checkpoint, or a model with --config, or both')
    if pretrained and checkpoint is not None:
        raise ConfigError('--pretrained downloads weights, which the checkpoint would replace: leave one of them out')
    asked = dict(attentive=attentive, neighbours=neighbours, corruptions=corruptions, severities=severities)
    further = Further(**asked)
    folder = Path(work_dir or default_work_dir(checkpoint, config) + ('_ema' if ema else ''))
    check_output(folder, force, FILES)
    torch.manual_seed(seed)  # untrained weights are the same on all processes
    options = dict(scale=scale, cfg_options=cfg_options, pretrained=pretrained, ema=ema)
    model = get_encoder(config, checkpoint, use_device(device), **options)
    images = encoder_images(images_config(model, data, data_root, scale), model)
    _fit_tokenizer(model, images)
    noisy, limits = [kind == 'noisy' for kind in inputs], (max_train_images, max_test_images)
    options = dict(seed=seed, memory=memory, refresh=refresh, verify=verify, precision=precision, further=further)
    place = Path(cache or folder / 'features'), blocks, timesteps, noisy, k, protocol, limits
    scores = probe_encoder(model, images, *place, **options)
    if is_main_process():
        root = images.train_dataloader.dataset.get('data_root')
        made_with = _made_with(model, scores, seed, ema, config=config, checkpoint=checkpoint, data=data, root=root)
        scores = replace(scores, files=write_probe(folder, scores, made_with))
    return scores


def learning_curves(
    checkpoints: Sequence[str | Path], work_dir: str | Path | None = None, force: bool = False, **options: Any
) -> dict[str, list[dict[str, Any]]]:
    """Scores of several checkpoints of trainings by the run they are of, in the order of their epochs; written to ``curves.json`` and,
    as a figure, ``curves.png``, with each probe in a folder of its own.

    Args:
        work_dir: None takes ``work_dirs/probe/curves``.
        force, options: As of :func:`probe`, which has the others of a single checkpoint.
    """
    folder = Path(work_dir or 'work_dirs/probe/curves')
    check_output(folder, force, CURVES)
    curves: dict[str, list[dict[str, Any]]] = {}
    names = names_of_runs(Path(path).absolute().parent for path in checkpoints)
    ordered = sorted(map(Path, checkpoints), key=lambda path: (str(path.parent), number_of(path)))
    check_is_there(*ordered)
    for path in ordered:
        name = names[path.absolute().parent]
        scores = probe(path, work_dir=folder / f'{name}_{path.stem}', force=True, **options)
        row = scores.chosen or scores.rows[0]
        curves.setdefault(name, []).append(dict(epoch=number_of(path), checkpoint=str(path), **asdict(row)))
    if is_main_process():
        kinds = {'linear, held-out images': 'held_out', 'linear, test images': 'linear'}
        panels = {
            title: {run: [(one['epoch'], one[key]) for one in points] for run, points in curves.items()}
            for title, key in kinds.items()
            if all(one[key] is not None for points in curves.values() for one in points)
        }
        save_figure(accuracy_curves(panels, 'epoch'), folder / CURVES[1])
        write_json(folder / CURVES[0], curves)
    return curves


def number_of(checkpoint: Path) -> int:
    """Epoch or step in the name of a checkpoint."""
    if (found := re.search(r'(\d+)$', checkpoint.stem)) is None:
        raise ConfigError(
            f'{checkpoint}: curves are of checkpoints whose names end in their epoch, such as epoch_4.pth'
        )
    return int(found[1])


def default_work_dir(checkpoint: str | Path | None, config: str | Path | Config | None) -> str:
    """``work_dirs/probe/<run>_<checkpoint>``, or the model's name."""
    if checkpoint is not None and '::' not in str(checkpoint):
        return f'work_dirs/probe/{name_of_run(checkpoint)}'
    name = str(getattr(config, 'filename', checkpoint or config))
    return f'work_dirs/probe/{re.sub("[^A-Za-z0-9_.-]+", "_", name).removesuffix(".py")}'


def check_output(folder: Path, force: bool, files: Sequence[str]) -> None:
    """Nothing is overwritten unless that is asked for."""
    with failing_together():
        existing = [name for name in files if (folder / name).exists()]
        if existing and not force:
            raise ConfigError(f'{folder / existing[0]} exists: pass --force, or take another --work-dir')
    barrier()


def images_config(model: nn.Module, data: str | Path | None, data_root: str | Path | None, scale: str | None) -> Config:
    """The config that names the images."""
    cfg = getattr(model, '_config', None)
    if data is not None:
        cfg = load_config(data, scale=scale)
    elif cfg is None or cfg.get('train_dataloader') is None:
        raise ConfigError('the model has no images of its own: name a config that has with --data')
    elif cfg.filename is None and data_root is None:
        tell_of_own_images(cfg)
    if data_root is not None:
        set_data_root(cfg, data_root)
    use_packed_data(cfg)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    return cfg


def tell_of_own_images(cfg: Config) -> None:
    """Say where the images lie that the checkpoint names, and which nobody else has; it may not name another machine."""
    nodes = list(walk_dicts([cfg.get(name) for name in LOADERS]))
    values = [value for node in nodes for value in node.values()]
    if any(node.get('backend_args') for node in nodes) or any('://' in str(v) or is_of_hub(v) for v in values):
        raise ConfigError(
            'the images that the checkpoint names are not on this machine: name a folder with --data-root'
        )
    if roots := {str(node['data_root']): 0 for node in nodes if node.get('data_root')}:
        print_log(f'Images are read where the checkpoint says: {", ".join(roots)}', 'current')


def _fit_tokenizer(model: nn.Module, data: Config) -> None:
    """Fit the tokenizer of an untrained l-DAE, as its training does before the first step."""
    tokenizer = getattr(model, 'tokenizer', None)
    if tokenizer is None or not tokenizer.needs_fit or tokenizer.is_fitted:
        return
    hook = (data.get('default_hooks') or {}).get('fit_tokenizer') or {}
    options = {name: hook[name] for name in ('num_images', 'batch_size', 'seed') if name in hook}
    fit_tokenizer(tokenizer, DATASETS.build(data.train_dataloader.dataset), model.data_preprocessor, **options)


def _made_with(model: nn.Module, scores: ProbeScores, seed: int, ema: bool, **named: Any) -> dict[str, Any]:
    """The things that the figures depend on; ``named`` are ``config``, ``checkpoint``, ``data`` and ``root``."""
    own = getattr(model, '_config', None)
    named['config'] = getattr(named['config'], 'filename', named['config']) or (own and own.filename) or None
    named['checkpoint'] = getattr(model, 'weights', named['checkpoint'])
    named = {key: value and str(value) for key, value in named.items()}
    data = dict(scores.data, config=named.pop('data'), root=named.pop('root'))
    how = dict(protocol=scores.protocol.as_dict(), seed=seed, seconds=scores.seconds, processes=get_world_size())
    where = dict(versions=provenance.versions(), commit=provenance.commit(), device=provenance.device())
    return dict(model=getattr(model, 'about', type(model).__name__), **named, data=data, **how, **where, ema=ema)
