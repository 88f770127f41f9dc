# SPDX-License-Identifier: Apache-2.0
"""How frozen features are scored: one protocol, which each tool takes and names beside its figures."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any

import torch
from torch import Tensor

from ldae.utils import Choice, ConfigError, PositiveInt, Range, checked

from .feature_stack import Features, mean_and_scale
from .knn import METRICS, knn_accuracies
from .linear_probe import SOLVERS, ProbeResult, linear_probes


@checked
@dataclass(frozen=True)
class Protocol:
    """What a figure of ours depends on beside encoder, data and seed. Features are averages over patch tokens.

    Args:
        name: Of these values; what differs from them is said with it.
        k: Neighbours that vote.
        temperature: Of the votes' weights exp(similarity / temperature); None gives each neighbour one vote.
        metric: Of the neighbours' distance.
        standardised_knn: Whether k-NN sees features of zero mean and unit variance, as linear layers always do.
        solver, lrs, weight_decays, epochs, batch_size, held_out, widen: Of the linear layers, as of
            :func:`ldae.evaluation.linear_probe`.
    """

    name: str = 'ldae-1'
    k: PositiveInt = 20
    temperature: Annotated[float, Range(1e-6)] | None = 0.07
    metric: Annotated[str, Choice(METRICS)] = 'cosine'
    standardised_knn: bool = False
    solver: Annotated[str, Choice(SOLVERS)] = 'sgd'
    lrs: tuple[Annotated[float, Range(1e-12)], ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    weight_decays: tuple[Annotated[float, Range(0)], ...] = (0.0, 1e-3, 1e-2)
    epochs: PositiveInt = 40
    batch_size: PositiveInt = 256
    held_out: Annotated[float, Range(0.01, 0.9)] = 0.2
    widen: Annotated[int, Range(0)] = 3

    def replace(self, **overrides: Any) -> 'Protocol':
        """The protocol with some values of one's own."""
        return replace(self, **_with_tuples(overrides))

    def overrides(self) -> dict[str, Any]:
        """The values that are not those of the protocol of this name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}

    def as_dict(self) -> dict[str, Any]:
        """For a file of results: all values, and which of them are overrides."""
        values = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
        return dict(values, overrides=sorted(self.overrides()))

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> 'Protocol':
        """The protocol that :meth:`as_dict` has described."""
        return cls(**_with_tuples({f.name: values[f.name] for f in fields(cls)}))

    def __str__(self) -> str:
        changed = ', '.join(f'{key}={value}' for key, value in self.overrides().items() if key != 'name')
        return f'{self.name} ({changed})' if changed else self.name


def _with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Lists of the command line and of JSON as the tuples that a protocol holds."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


PROTOCOL = Protocol()


@dataclass(frozen=True)
class Score:
    """What one set of features scores: k-NN accuracy in percent by number of neighbours, and the linear layer's result."""

    knn: dict[int, float]
    linear: ProbeResult

    @property
    def held_out(self) -> float | None:
        """Accuracy in percent on held-out training images, by which choices are made; None where there was none."""
        return self.linear.held_out_accuracy.get(self.linear.setting)

    def as_dict(self) -> dict[str, Any]:
        """For a file of results: ``knn`` of the fewest neighbours that were asked for first, ``linear`` and its choice."""
        chosen, held_out = self.linear.setting, self.held_out
        return dict(
            knn=round(next(iter(self.knn.values())), 2),
            linear=round(self.linear.accuracy, 2),
            held_out=None if held_out is None else round(held_out, 2),
            lr=chosen.lr,
            weight_decay=chosen.weight_decay,
            at_edge=list(self.linear.at_edge),
        )


def score(
    protocol: Protocol,
    train_x: Features,
    train_y: Tensor,
    test_x: Features,
    test_y: Tensor,
    seed: int = 0,
    **options: Any,
) -> Score:
    """:func:`score_sets` of one set of features (n, C), (m, C) with labels (n,), (m,)."""
    return score_sets(protocol, {'': train_x}, train_y, {'': test_x}, test_y, seed, **options)['']


def score_sets(
    protocol: Protocol,
    train: Mapping[Hashable, Features],
    train_y: Tensor,
    test: Mapping[Hashable, Features],
    test_y: Tensor,
    seed: int = 0,
    ks: Sequence[int] = (),
    device: str | torch.device | None = None,
    memory: float = 4.0,
) -> dict[Hashable, Score]:
    """Score features of the same images; each set's score is the one it has alone.

    In a distributed run the ranks share the work, and all get all scores.

    Args:
        train, test: Features by key, the same keys in both: tensors, or rows that are read from files.
        seed: Of the linear layers.
        ks: Numbers of neighbours; the protocol's alone by default.
        device, memory: As of :func:`ldae.evaluation.linear_probes`.

    Raises:
        ConfigError: Features that aren't finite, fewer images than neighbours, a test class that training lacks.
    """
    sets = {key: (train[key], train_y, test[key], test_y) for key in train}
    knn = {key: score_knn(protocol, *one, ks=ks, device=device) for key, one in sets.items()}
    linear = score_linear(protocol, train, train_y, test, test_y, seed, device=device, memory=memory)
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
    """The k-NN part of :func:`score_sets`, of one set."""
    if protocol.standardised_knn:
        mean, scale = mean_and_scale(train_x)
        train_x, test_x = (train_x[:] - mean) * scale, (test_x[:] - mean) * scale
    options = dict(temperature=protocol.temperature, metric=protocol.metric, device=device)
    return knn_accuracies(train_x, train_y, test_x, test_y, tuple(ks) or (protocol.k,), **options)


def score_linear(
    protocol: Protocol,
    train: Mapping[Hashable, Features],
    train_y: Tensor,
    test: Mapping[Hashable, Features],
    test_y: Tensor,
    seed: int = 0,
    **options: Any,
) -> dict[Hashable, ProbeResult]:
    """The linear part of :func:`score_sets`."""
    names = ('solver', 'lrs', 'weight_decays', 'epochs', 'batch_size', 'held_out', 'widen')
    heads = {name: getattr(protocol, name) for name in names}
    return linear_probes(train, train_y, test, test_y, **heads, seed=seed, **options)


def choose(scores: Mapping[Hashable, Score]) -> Hashable:
    """The key of the best score on held-out training images, of equal ones the first: test images choose nothing.

    Raises:
        ConfigError: Nothing was held out, since the protocol has a single setting.
    """
    if len(scores) > 1 and any(one.held_out is None for one in scores.values()):
        raise ConfigError('nothing was held out to choose by: give the linear layers several rates')
    return max(scores, key=lambda key: scores[key].held_out or 0.0)
