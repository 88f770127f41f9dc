# SPDX-License-Identifier: Apache-2.0
"""An encoder's blocks, time steps and inputs, scored by one protocol from one pass over the images."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ldae.utils import ConfigError
from ldae.utils.device import autocast

from .cache import FeatureCache, FeatureSetting, cache_features
from .features import num_blocks, resolve_blocks, resolve_inputs
from .knn import check_classes
from .probe_data import data_description, labelled_dataloaders, labels_of_dataset, preprocessor_of
from .protocol import PROTOCOL, Protocol, Score, choose, score_sets

RANGE = re.compile(r'(\d+)-(\d+)')
#: Of k-NN, where none are asked for.
NEIGHBOURS = (10, 20, 100, 200)


@dataclass(frozen=True)
class ProbeRow:
    """Accuracies in percent of the features after one block, at one time step, of one kind of input.

    ``held_out`` is the linear layer's on held-out training images; None where nothing was held out.
    """

    block: int
    timestep: int | None
    input: str
    knn: dict[int, float]
    linear: float
    lr: float | None
    weight_decay: float
    held_out: float | None = None
    at_edge: Sequence[str] = ()

    @classmethod
    def of(cls, setting: FeatureSetting, score: Score) -> 'ProbeRow':
        """Of what was measured of one set of features."""
        kind = 'noisy' if setting.noisy else 'clean'
        knn = {k: round(value, 2) for k, value in score.knn.items()}
        found = score.as_dict()
        names = ('linear', 'lr', 'weight_decay', 'held_out', 'at_edge')
        return cls(setting.block, setting.timestep, kind, knn, **{name: found[name] for name in names})

    @property
    def place(self) -> str:
        """``block 12, t = 10, noisy``."""
        return str(FeatureSetting(self.block, self.timestep, self.input == 'noisy'))


@dataclass(frozen=True)
class ProbeScores:
    """The result of a probe.

    Attributes:
        rows: One a set of features.
        chosen: The row that is best on held-out training images; None where nothing was held out.
        protocol: How they were scored.
        data: Numbers of images and classes.
        seconds: Of the steps.
        files: Those that were written.
    """

    rows: list[ProbeRow]
    chosen: ProbeRow | None
    protocol: Protocol
    data: dict[str, int]
    seconds: dict[str, float]
    files: Sequence[Path] = ()


def probe_encoder(
    model: nn.Module,
    data: Config,
    cache: Path,
    blocks: Sequence[str | int] = (-1,),
    timesteps: Sequence[int] | None = None,
    noisy: Sequence[bool] = (False,),
    k: Sequence[int] | None = (PROTOCOL.k,),
    protocol: Protocol = PROTOCOL,
    limits: tuple[int | None, int | None] = (None, None),
    seed: int = 0,
    memory: float = 4.0,
    refresh: bool = False,
    verify: bool = False,
    precision: str | None = None,
) -> ProbeScores:
    """Score the features after each block, at each time step, of each kind of input.

    In a distributed run all processes call this; they share the work, and all get the scores. Raises ConfigError for
    blocks, time steps or inputs that the model doesn't have, data that can't be scored.

    Args:
        model: As :func:`ldae.evaluation.block_features` takes it, in evaluation mode.
        data, cache: Config that names training and test images; folder of the features, which are used again.
        blocks, timesteps, noisy: As :func:`parse_blocks` and :func:`ldae.evaluation.cache_features` take them.
        k: Numbers of neighbours; None takes those of :data:`NEIGHBOURS` for which there are images. Where the protocol's own
            is not among them, the first overrides it.
        limits: Most training and test images, chosen by class; None for all.
        seed, memory: Of the linear layers, as of :func:`ldae.evaluation.score_sets`.
        refresh, verify: Compute features anew, or compare those that are there with their checksums.
        precision: Of the encoder's products, as of :func:`ldae.utils.device.autocast`.
    """
    numbers = parse_blocks(blocks, num_blocks(model))
    timesteps = None if timesteps is None else sorted(set(timesteps))
    noisy = list(dict.fromkeys(noisy))
    resolve_inputs(model, timesteps, noisy)
    loaders = labelled_dataloaders(data, limits, max(k or [1]))
    _check_classes(*(labels_of_dataset(loader.dataset) for loader in loaders), limits[1])
    images = len(loaders[0].dataset)
    k = k or [number for number in NEIGHBOURS if number <= images] or [images]
    protocol = protocol if protocol.k in k else protocol.replace(k=k[0])
    settings = dict(blocks=numbers, timesteps=timesteps, noisy=noisy, refresh=refresh, verify=verify)
    preprocess, start = preprocessor_of(model, data), time.perf_counter()
    device = next((param.device for param in model.parameters()), torch.device('cpu'))
    with autocast(precision, device):
        train, test = (
            _cached(model, loader, preprocess, cache, desc=f'{split} features', **settings)
            for split, loader in zip(('train', 'test'), loaders, strict=True)
        )
    _check_classes(train.labels, test.labels, limits[1])
    seconds = dict(features=time.perf_counter() - start)
    options = dict(ks=sorted(set(k)), seed=seed, device=device, memory=memory, seconds=seconds)
    scores = score_sets(protocol, train, train.labels, test, test.labels, **options)
    rows = {setting: ProbeRow.of(setting, score) for setting, score in scores.items()}
    chosen = rows[choose(scores)] if all(score.held_out is not None for score in scores.values()) else None
    counts = dict(train_images=train.num_images, test_images=test.num_images, classes=len(train.labels.unique()))
    seconds['pass_over_images'] = train.seconds + test.seconds
    seconds = {key: round(value, 1) for key, value in seconds.items()}
    return ProbeScores(list(rows.values()), chosen, protocol, counts, seconds)


def parse_blocks(words: Sequence[str | int], depth: int) -> list[int]:
    """``['1', '6-12']`` -> numbers, each once, in order; ``['all']`` -> 1 to ``depth``; negative ones count from the
    end. Raises ConfigError for a word that is not a number or a range, or a block that the encoder doesn't have."""
    numbers: list[int] = []
    for word in map(str, words):
        match = RANGE.fullmatch(word)
        if word == 'all':
            numbers += range(1, depth + 1)
        elif match and int(match[1]) <= int(match[2]):
            numbers += range(int(match[1]), int(match[2]) + 1)
        elif re.fullmatch(r'-?\d+', word):
            numbers.append(int(word))
        else:
            raise ConfigError(f"blocks {word}: give numbers, ranges from small to large as in 6-12, or 'all'")
    resolved = [resolve_blocks(depth, [number])[0] for number in numbers]
    return sorted(set(resolved))


def _check_classes(train_y: Tensor | None, test_y: Tensor | None, limit: int | None) -> None:
    """Both sets must have the same classes, as far as they are known; a choice of test images may lack some."""
    if train_y is None or test_y is None:
        return
    check_classes(train_y, test_y)
    missing = sorted(set(train_y.unique().tolist()) - set(test_y.unique().tolist()))
    if missing and limit is None:
        raise ConfigError(
            f'the test set has no image of class {missing[:10]}, which the training set has: its accuracy would be '
            'that of another task; add some, or name other data with --data'
        )


def _cached(model: nn.Module, loader: DataLoader, preprocess: partial, cache: Path, **settings: Any) -> FeatureCache:
    """Features of one split; what the model says of images that it can't take becomes one line."""
    try:
        return cache_features(model, loader, preprocess, cache, data=data_description(loader), **settings)
    except (RuntimeError, AssertionError) as error:
        if 'out of memory' in str(error):
            raise ConfigError('out of memory: lower the batch_size of the data loaders') from error
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"the model can't take these images ({reason}): name others with --data") from error
