# SPDX-License-Identifier: Apache-2.0
"""A closer look at the features that a probe has chosen: attentive probes of their tokens, the nearest training images,
and the accuracy on corrupted test images."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from mmengine.dist import barrier, is_main_process
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from ldae.datasets.low_shot import spread_over_classes
from ldae.utils import ConfigError, NaturalInt, checked
from ldae.visualization import accuracy_curves, retrieval_grid

from .attentive_probe import AttentiveOptions, attentive_probes
from .cache import FeatureCache, FeatureSetting
from .corruptions import Corruption, Severity, corrupted_loader, resolve_corruptions
from .knn import accuracy, nearest_neighbours
from .linear_probe import ProbeResult
from .probe_data import data_description
from .protocol import Protocol, Score, compared_features, score_knn

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Test images whose neighbours are shown.
QUERIES = 10


@checked
@dataclass(frozen=True, kw_only=True)
class Further:
    """Options of all that may be asked of the chosen features beside k-NN and linear layers.

    Args:
        attentive: Kinds of attentive probes, or their options.
        neighbours: So many nearest training images of some test images; 0 for none.
        corruptions, severities: Of test images, as ImageNet-C has them; ``'all'`` are its fifteen.
    """

    attentive: Sequence[str | AttentiveOptions] = ()
    neighbours: NaturalInt = 0
    corruptions: Sequence[Corruption] = ()
    severities: Sequence[Severity] = (1, 2, 3, 4, 5)

    def __post_init__(self) -> None:
        kinds = [one if isinstance(one, AttentiveOptions) else AttentiveOptions(kind=one) for one in self.attentive]
        object.__setattr__(self, 'attentive', list({one.kind: one for one in kinds}.values()))
        object.__setattr__(self, 'corruptions', resolve_corruptions(self.corruptions))
        object.__setattr__(self, 'severities', sorted(set(self.severities)))
        if self.corruptions and not self.severities:
            raise ConfigError('corruptions need at least one of the severities 1 to 5')

    def __bool__(self) -> bool:
        return bool(self.attentive or self.neighbours or self.corruptions)


class Neighbours(NamedTuple):
    """Test images (q,), their nearest training images (q, k) by number, nearest first, and the similarities (q, k)."""

    queries: list[int]
    indices: list[list[int]]
    similarities: list[list[float]]


@dataclass(frozen=True)
class Found:
    """The results, of those that were asked for: attentive probes by kind, neighbours, and of each corruption and severity
    the accuracies in percent of k-NN and of the linear layer that was trained on clean images."""

    attentive: dict[str, ProbeResult] = field(default_factory=dict)
    options: dict[str, AttentiveOptions] = field(default_factory=dict)
    neighbours: Neighbours | None = None
    described: list[dict[str, Any]] = field(default_factory=list)
    robustness: list[dict[str, Any]] = field(default_factory=list)
    pictures: 'dict[str, Figure]' = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For a file of results."""
        attentive = {
            kind: dict(result.as_dict(), options=self.options[kind].as_dict())
            for kind, result in self.attentive.items()
        }
        return dict(attentive=attentive, robustness=self.robustness) if attentive or self.robustness else {}


class Chosen(NamedTuple):
    """The features that were chosen, with what they were taken of: loaders and caches of training and test images, and a
    function that gives the cache of other ones."""

    protocol: Protocol
    setting: FeatureSetting
    score: Score
    loaders: Sequence[DataLoader]
    train: FeatureCache
    test: FeatureCache
    cached: Callable[..., FeatureCache]
    is_bgr: bool
    where: dict[str, Any]  # seed, device and memory

    def features(self, loader: DataLoader, desc: str, **options: Any) -> FeatureCache:
        """The same features of other images, or their tokens."""
        block, timestep, noisy = self.setting
        timesteps = None if timestep is None else [timestep]
        return self.cached(loader, desc=desc, blocks=[block], timesteps=timesteps, noisy=[noisy], **options)


def look_further(further: Further, chosen: Chosen, seconds: dict[str, float]) -> Found:
    """All that was asked for; in a distributed run all processes call this, and all get the results.

    Args:
        seconds: Is given the time that each took."""
    results = {}
    parts = dict(attentive=score_attentive, neighbours=find_neighbours, robustness=score_corrupted)
    asked = dict(attentive=further.attentive, neighbours=further.neighbours, robustness=further.corruptions)
    for name, part in parts.items():
        if asked[name]:
            start = time.perf_counter()
            results[name] = part(further, chosen)
            seconds[name] = time.perf_counter() - start
    pictures = {}
    if is_main_process():
        if 'neighbours' in results:
            results['described'] = describe_neighbours(results['neighbours'], chosen)
            pictures['neighbours'] = draw_neighbours(results['neighbours'], chosen)
        if 'robustness' in results:
            pictures['robustness'] = draw_robustness(results['robustness'], chosen)
    return Found(**results, options={one.kind: one for one in further.attentive}, pictures=pictures)


def score_attentive(further: Further, chosen: Chosen) -> dict[str, ProbeResult]:
    """Attentive probes of the patch tokens, from a pass of their own unless the first one has kept them."""
    train, test = (
        chosen.features(loader, f'{split} tokens', tokens=True).tokens(chosen.setting)
        for split, loader in zip(('train', 'test'), chosen.loaders, strict=True)
    )
    labels = chosen.train.labels, chosen.test.labels
    return attentive_probes(train, labels[0], test, labels[1], further.attentive, **chosen.where)


def find_neighbours(further: Further, chosen: Chosen) -> Neighbours:
    """Of test images of different classes, by the cosine of the features that k-NN compares."""
    queries = spread_over_classes(chosen.test.labels, min(QUERIES, chosen.test.num_images))
    train, test = compared_features(chosen.protocol, chosen.train[chosen.setting], chosen.test[chosen.setting])
    count = min(further.neighbours, train.shape[0])
    device = chosen.where['device']
    similarity, index = nearest_neighbours(train, test[torch.as_tensor(queries)], count, device=device)
    return Neighbours(list(queries), index.tolist(), [[round(x, 4) for x in row] for row in similarity.tolist()])


def describe_neighbours(found: Neighbours, chosen: Chosen) -> list[dict[str, Any]]:
    """For a file of results: number, class and file of each image."""
    train, test = (loader.dataset for loader in chosen.loaders)
    entries = []
    for query, row, similarities in zip(*found, strict=True):
        near = [
            dict(describe_image(train, number, chosen.train.labels), similarity=similarity)
            for number, similarity in zip(row, similarities, strict=True)
        ]
        entries.append(dict(query=describe_image(test, query, chosen.test.labels), neighbours=near))
    return entries


def describe_image(dataset: Dataset, number: int, labels: Tensor) -> dict[str, Any]:
    """An image's number in the whole data set, its label, its class's name and its file, where there are some."""
    label = int(labels[number])
    if isinstance(dataset, Subset):
        dataset, number = dataset.dataset, int(dataset.indices[number])
    about = dict(image=number, label=label)
    names = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    if names and label < len(names):
        about['class'] = names[label]
    if hasattr(dataset, 'get_data_info') and 'img_path' in (info := dataset.get_data_info(number)):
        about['file'] = str(info['img_path'])
    return about


def draw_neighbours(found: Neighbours, chosen: Chosen) -> 'Figure':
    """A row a test image, followed by its nearest training images."""
    sides = [(loader, cache.labels) for loader, cache in zip(chosen.loaders, (chosen.train, chosen.test), strict=True)]
    images, names = [], []
    for query, row, _ in zip(*found, strict=True):
        places = [(*sides[1], query), *((*sides[0], number) for number in row)]
        images.append([shown_image(loader, number, chosen.is_bgr) for loader, _, number in places])
        about = [describe_image(loader.dataset, number, labels) for loader, labels, number in places]
        names.append([str(one.get('class', one['label'])) for one in about])
    return retrieval_grid(images, names)


def shown_image(loader: DataLoader, number: int, is_bgr: bool) -> Tensor:
    """An image (C, H, W) as the encoder's preparation leaves it, RGB or grey."""
    image = loader.dataset[number]['inputs']
    image = image[0] if image.dim() == 4 else image
    return image.flip(0) if is_bgr and len(image) == 3 else image


def score_corrupted(further: Further, chosen: Chosen) -> list[dict[str, Any]]:
    """Accuracies on test images of each corruption and severity; nothing is trained or chosen on them."""
    rows, protocol = [], chosen.protocol
    labels, clean = (chosen.train.labels, chosen.test.labels), data_description(chosen.loaders[1])
    for name, severity in product(further.corruptions, further.severities):
        how = dict(name=name, severity=severity, seed=chosen.where['seed'], is_bgr=chosen.is_bgr)
        loader = corrupted_loader(chosen.loaders[1], **how)
        cache = chosen.features(loader, f'{name} {severity}', described=[how, clean])
        features = cache[chosen.setting]
        knn = score_knn(protocol, chosen.train[chosen.setting], labels[0], features, labels[1])[protocol.k]
        linear = accuracy(chosen.score.linear.head.predict(features), labels[1])
        rows.append(dict(corruption=name, severity=severity, knn=round(knn, 2), linear=round(linear, 2)))
        barrier()
        if is_main_process():
            shutil.rmtree(cache.folder, ignore_errors=True)
    return rows


def mean_by_severity(rows: Sequence[dict[str, Any]]) -> dict[int, dict[str, float]]:
    """Mean over corruptions of each accuracy."""
    found = {}
    for severity in sorted({row['severity'] for row in rows}):
        some = [row for row in rows if row['severity'] == severity]
        found[severity] = {name: sum(row[name] for row in some) / len(some) for name in ('knn', 'linear')}
    return found


def draw_robustness(rows: Sequence[dict[str, Any]], chosen: Chosen) -> 'Figure':
    """Accuracy over severity, a curve a corruption, beginning with clean images, and their mean."""
    clean = dict(linear=chosen.score.linear.accuracy, knn=chosen.score.knn[chosen.protocol.k])
    panels = {}
    for name, title in (('linear', 'linear probe'), ('knn', f'{chosen.protocol.k}-NN')):
        curves = panels.setdefault(title, {})
        for row in rows:
            curves.setdefault(row['corruption'], [(0, clean[name])]).append((row['severity'], row[name]))
        if len(curves) > 1:
            means = [(severity, mean[name]) for severity, mean in mean_by_severity(rows).items()]
            curves['mean'] = [(0, clean[name]), *means]
    return accuracy_curves(panels, 'severity of the corruption (0: clean)', str(chosen.setting), dashed=('mean',))
