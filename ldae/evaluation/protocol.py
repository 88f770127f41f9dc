# SPDX-License-Identifier: Apache-2.0
"""How frozen features are scored: one protocol, which each tool takes and names beside its figures."""

import logging
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any

import torch
from mmengine.logging import print_log
from torch import Tensor

from ldae.utils import Choice, ConfigError, PositiveInt, Range, checked

from .feature_stack import Features, Sets
from .knn import Metric, knn_accuracies
from .linear_probe import LinearOptions, ProbeResult, linear_probes, standardise

Temperature = Annotated[float, Range(1e-6)] | None
Pooling = Annotated[str, Choice('mean', 'cls', 'own')]


@checked
@dataclass(frozen=True, kw_only=True)
class Protocol(LinearOptions):
    """All that an accuracy depends on beside the encoder, the data and the seed, which is that of the linear layers.

    Args:
        name: Of these values; what differs from them is said beside it.
        pooling: How an image's tokens become its features: as of :func:`ldae.evaluation.block_features`.
        precision: What features are rounded to before they are scored: float16, as a cache keeps them, so that tools
            with and without one find the same.
        k: Neighbours that vote.
        temperature: Of the votes' weights exp(similarity / temperature); None gives each neighbour one vote.
        metric: Of the neighbours' distance.
        standardised_knn: Whether k-NN sees features of zero mean and unit variance, as linear layers always do.
        solver, lrs, weight_decays, epochs, batch_size, held_out, widen: As of :class:`LinearOptions`.
    """

    name: Annotated[str, Choice('ldae-1')] = 'ldae-1'
    pooling: Pooling = 'mean'
    precision: Annotated[str, Choice('float16', 'float32')] = 'float16'
    k: PositiveInt = 20
    temperature: Temperature = 0.07
    metric: Metric = 'cosine'
    standardised_knn: bool = False

    def replace(self, **overrides: Any) -> 'Protocol':
        """The protocol with some values of one's own."""
        return replace(self, **overrides)

    def overrides(self) -> dict[str, Any]:
        """The values that are not those of the protocol of this name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}

    def as_dict(self) -> dict[str, Any]:
        """For a file of results: all values, and the names of the overrides."""
        values = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
        return dict(values, overrides=sorted(self.overrides()))

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> 'Protocol':
        """The protocol that :meth:`as_dict` has described."""
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})

    def __str__(self) -> str:
        changed = ', '.join(f'{key}={value}' for key, value in self.overrides().items())
        return f'{self.name} ({changed})' if changed else self.name


PROTOCOL = Protocol()


@dataclass(frozen=True)
class Score:
    """Scores of one set of features: k-NN accuracy in percent by number of neighbours, and the linear layer's result."""

    knn: dict[int, float]
    linear: ProbeResult

    @property
    def held_out(self) -> float | None:
        """The linear layer's accuracy on held-out training images, by which choices are made; None where there are none."""
        return self.linear.held_out

    def as_dict(self, k: int | None = None) -> dict[str, Any]:
        """For a file of results: accuracies in percent (k-NN's of ``k`` neighbours, or of the first number that was asked
        for), and what was chosen."""
        knn = self.knn[next(iter(self.knn)) if k is None else k]
        return dict(knn=round(knn, 2), **self.linear.as_dict('linear'))


def score(
    protocol: Protocol, train_x: Features, train_y: Tensor, test_x: Features, test_y: Tensor, **options: Any
) -> Score:
    """:func:`score_sets` of one set of features (n, C), (m, C) with labels (n,), (m,)."""
    return score_sets(protocol, {'': train_x}, train_y, {'': test_x}, test_y, **options)['']


def score_sets(
    protocol: Protocol,
    train: Sets,
    train_y: Tensor,
    test: Sets,
    test_y: Tensor,
    seed: int = 0,
    ks: Sequence[int] = (),
    device: str | torch.device | None = None,
    memory: float = 4.0,
    seconds: dict[str, float] | None = None,
) -> dict[Hashable, Score]:
    """Score sets of features of the same images by k-NN and linear layers; each has the score that it has alone.

    In a distributed run the ranks share the work, and all get all scores. A linear layer whose learning rate or weight
    decay is at the end of the grid, even after it was widened, is warned of. Raises ConfigError for features that
    aren't finite, fewer images than neighbours, a test class that training lacks.

    Args:
        train, test: Features by key, the same keys in both: tensors, or rows that are read from files.
        seed: Of the linear layers.
        ks: Numbers of neighbours; the protocol's alone by default.
        device, memory: As of :func:`ldae.evaluation.linear_probes`.
        seconds: Is given the time that each half took, as ``knn`` and ``linear``.
    """
    sets = {key: (train[key], train_y, test[key], test_y) for key in train}
    start = time.perf_counter()
    knn = {key: score_knn(protocol, *one, ks=ks, device=device) for key, one in sets.items()}
    between = time.perf_counter()
    linear = score_linear(protocol, train, train_y, test, test_y, seed=seed, device=device, memory=memory)
    if seconds is not None:
        seconds |= dict(knn=between - start, linear=time.perf_counter() - between)
    return {key: Score(knn[key], linear[key]) for key in train}


def score_knn(
    protocol: Protocol,
    train_x: Features,
    train_y: Tensor,
    test_x: Features,
    test_y: Tensor,
    ks: Sequence[int] = (),
    device: str | torch.device | None = None,
) -> dict[int, float]:
    """The k-NN half of :func:`score_sets`, of one set."""
    train_x, test_x = compared_features(protocol, train_x, test_x)
    options = dict(temperature=protocol.temperature, metric=protocol.metric, device=device)
    return knn_accuracies(train_x, train_y, test_x, test_y, tuple(ks) or (protocol.k,), **options)


def compared_features(protocol: Protocol, train_x: Features, test_x: Features) -> tuple[Features, Features]:
    """Features as k-NN sees them."""
    train_x, test_x = _rounded(protocol, train_x), _rounded(protocol, test_x)
    return standardise(train_x[:], test_x[:]) if protocol.standardised_knn else (train_x, test_x)


def score_linear(
    protocol: Protocol, train: Sets, train_y: Tensor, test: Sets, test_y: Tensor, **options: Any
) -> dict[Hashable, ProbeResult]:
    """The linear half of :func:`score_sets`; ``options`` are ``seed``, ``device`` and ``memory``."""
    train, test = ({key: _rounded(protocol, x) for key, x in sets.items()} for sets in (train, test))
    options |= {field.name: getattr(protocol, field.name) for field in fields(LinearOptions)}
    linear = linear_probes(train, train_y, test, test_y, **options)
    _warn_of_edges(linear, protocol.widen)
    return linear


def _rounded(protocol: Protocol, features: Features) -> Features:
    """Features in memory as a cache would give them."""
    if isinstance(features, Tensor) and protocol.precision == 'float16':
        return features.half().float()
    return features


def _warn_of_edges(results: Mapping[Hashable, ProbeResult], widen: int) -> None:
    at_edge = {key: result for key, result in results.items() if result.at_edge}
    shown = []
    for key, result in list(at_edge.items())[:4]:
        values = ', '.join(f'{name}={getattr(result.setting, name):g}' for name in result.at_edge)
        shown.append(f'{key}: {values}' if key else values)
    if at_edge:
        print_log(
            f'The best linear layer is at the end of what was tried for {len(at_edge)} of {len(results)} sets of '
            f'features ({"; ".join(shown)}): it may score higher beyond; give more values, or raise widen={widen}',
            'current',
            logging.WARNING,
        )


def choose(scores: Mapping[Hashable, Score]) -> Hashable:
    """The key of the best score on held-out training images, of equal ones the first: test images choose nothing.
    Raises ConfigError if nothing was held out, since the protocol has a single setting."""
    if len(scores) > 1 and any(one.held_out is None for one in scores.values()):
        raise ConfigError('nothing was held out to choose by: give the linear layers several rates')
    return max(scores, key=lambda key: scores[key].held_out or 0.0)
