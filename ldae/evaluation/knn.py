# SPDX-License-Identifier: Apache-2.0
"""k-nearest-neighbour classification of frozen features, in blocks, on any device."""

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from mmengine.dist import all_reduce, get_dist_info
from torch import Tensor
from torch.nn import functional as F

from ldae.utils import Choice, ConfigError, PositiveInt, checked

from .feature_stack import Features, mean_and_scale

Device = str | torch.device | None
Metric = Annotated[str, Choice('cosine', 'euclidean')]


@checked
def knn_classify(
    train_x: Features,
    train_y: Tensor,
    test_x: Features,
    k: PositiveInt = 20,
    temperature: float | None = 0.07,
    metric: Metric = 'cosine',
    block_size: int = 256,
) -> Tensor:
    """Predict labels (m,) for ``test_x`` (m, C) from the k nearest of ``train_x`` (n, C), ``train_y`` (n,).

    Neighbours vote with weight exp(similarity / temperature), as in instance discrimination (Wu et al., 2018) and DINO.
    Raises ConfigError for more neighbours than samples, features that aren't finite, or shapes that don't fit.

    Args:
        k: Number of neighbours.
        temperature: None gives each neighbour one vote; the smaller label wins a tie, as in scikit-learn.
        metric: ``'cosine'`` or ``'euclidean'`` (which has one vote each).
        block_size: Test rows at a time; memory is that of ``block_size x 256 block_size`` similarities.
    """
    _check(train_x, train_y, test_x, k, temperature, metric)
    similarity, index = nearest_neighbours(train_x, test_x, k, metric, block_size)
    return vote(similarity, train_y.to(index.device)[index], temperature)


def knn_accuracy(train_x: Features, train_y: Tensor, test_x: Features, test_y: Tensor, **kwargs) -> float:
    """Percentage of ``test_y`` that :func:`knn_classify` predicts; takes its options."""
    check_classes(train_y, test_y)
    predicted = knn_classify(train_x, train_y, test_x, **kwargs)
    return accuracy(predicted, test_y)


@checked
def knn_accuracies(
    train_x: Features,
    train_y: Tensor,
    test_x: Features,
    test_y: Tensor,
    ks: Sequence[PositiveInt] = (10, 20, 100, 200),
    temperature: float | None = 0.07,
    metric: Metric = 'cosine',
    block_size: int = 256,
    device: Device = None,
) -> dict[int, float]:
    """Percentage of ``test_y`` that is predicted with each number of neighbours, from one search.

    In a distributed run the ranks share the test images; all must call this, with the same features, and all get the
    result. Raises ConfigError as :func:`knn_classify`, and for a test class that training lacks.

    Args:
        train_x, test_x: Features (n, C), (m, C): tensors, or rows that are read from files block by block.
        ks: Numbers of neighbours.
        temperature, metric, block_size: As of :func:`knn_classify`.
        device: Where neighbours are searched; None takes the features'.
    """
    if not ks:
        raise ConfigError('knn_accuracies: ks needs at least one number of neighbours')
    _check(train_x, train_y, test_x, max(ks), temperature, metric)
    check_classes(train_y, test_y)
    rank, world = get_dist_info()
    mine = test_y[rank::world]
    counts = torch.zeros(len(ks), dtype=torch.int64, device=device)
    if len(mine):
        similarity, index = nearest_neighbours(train_x, test_x[rank::world], max(ks), metric, block_size, device)
        labels, mine = train_y.to(index.device)[index], mine.to(index.device)
        votes = [vote(similarity[:, :k], labels[:, :k], temperature) for k in ks]
        counts = torch.stack([(predicted == mine).sum() for predicted in votes])
    all_reduce(counts)
    return {k: 100 * count / len(test_y) for k, count in zip(ks, counts.tolist(), strict=True)}


def nearest_neighbours(
    train_x: Features, test_x: Features, k: int, metric: str = 'cosine', block_size: int = 256, device: Device = None
) -> tuple[Tensor, Tensor]:
    """Similarities and indices (m, k) of the k nearest training rows, nearest first.

    The similarity is the cosine, or for ``'euclidean'`` x.y - |y|^2 / 2, which orders rows y as their distance to x does.
    Beyond the result and a copy of ``test_x``, memory is that of one block of training rows and of similarities."""
    # Centring moves no distance and keeps the digits that a far-away mean would take from the product.
    mean = mean_and_scale(train_x)[0] if metric == 'euclidean' else None
    queries = _prepared(test_x[:], mean, device)
    best, index, buffer = None, None, None
    # Few blocks of many training rows: each has its k best to be sorted out, which costs more than to find them.
    step = 256 * block_size
    for start in range(0, train_x.shape[0], step):
        rows = _prepared(train_x[start : start + step], mean, device)
        offset = None if mean is None else rows.square().sum(dim=1) / 2
        if best is None:
            best, index = rows.new_empty(len(queries), k), rows.new_empty(len(queries), k, dtype=torch.int64)
            buffer = rows.new_empty(min(block_size, len(queries)) * len(rows))
        known = min(k, start)
        for first in range(0, len(queries), block_size):
            part = slice(first, first + block_size)
            # In memory that was used before: fresh pages cost a tenth of the product.
            shape = len(queries[part]), len(rows)
            similarity = torch.mm(queries[part], rows.t(), out=buffer[: math.prod(shape)].view(shape))
            if offset is not None:
                similarity -= offset
            _merge(best[part], index[part], known, similarity, start)
    return best, index


def _prepared(rows: Tensor, mean: Tensor | None, device: Device) -> Tensor:
    """Rows to multiply: normalised, or without the mean."""
    rows = rows.to(device)
    if not rows.dtype.is_floating_point or rows.element_size() < 4:
        rows = rows.float()
    return F.normalize(rows, dim=1) if mean is None else rows - mean.to(rows.device)


def _merge(best: Tensor, index: Tensor, known: int, similarity: Tensor, start: int) -> None:
    """Let the columns of a block, the first of which is number ``start``, compete with the ``known`` best so far."""
    k = best.shape[1]
    top, found = similarity.topk(min(k, similarity.shape[1]), dim=1)
    found += start
    if known:
        top, found = torch.cat([best[:, :known], top], dim=1), torch.cat([index[:, :known], found], dim=1)
        top, order = top.topk(min(k, top.shape[1]), dim=1)
        found = found.gather(1, order)
    best[:, : top.shape[1]], index[:, : top.shape[1]] = top, found


def vote(similarity: Tensor, labels: Tensor, temperature: float | None) -> Tensor:
    """Winning labels (m,) of neighbours' ``labels`` (m, k)."""
    if temperature is None:
        weights = torch.ones_like(similarity)
    else:
        # Relative to the nearest neighbour, so that a small temperature can't overflow.
        weights = ((similarity - similarity[:, :1]) / temperature).exp()
    votes = similarity.new_zeros(len(labels), int(labels.max()) + 1).scatter_add_(1, labels, weights)
    return votes.argmax(dim=1)


def accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Percentage of equal entries."""
    return 100 * int((predicted.cpu() == labels.cpu()).sum()) / len(labels)


def check_features(name: str, features: Features, labels: Tensor | None = None, dims: int = 2) -> None:
    """Raise :class:`ConfigError` unless features are a finite (n, C), or tokens (n, N, C) of 3 ``dims``, with one label
    each."""
    if len(features.shape) != dims or (labels is not None and len(labels) != features.shape[0]):
        shape, expected = None if labels is None else tuple(labels.shape), '(n, C)' if dims == 2 else '(n, N, C)'
        raise ConfigError(f'{name}: features {tuple(features.shape)}, labels {shape}: expected {expected} and (n,)')
    # Those of a cache were checked when they were written.
    if isinstance(features, Tensor) and not torch.isfinite(features).all():
        bad = int((~torch.isfinite(features)).flatten(1).any(dim=1).sum())
        raise ConfigError(f'{name}: {bad} of {len(features)} feature rows hold NaN or infinity: check the checkpoint')


def check_classes(train_y: Tensor, test_y: Tensor) -> None:
    """Raise :class:`ConfigError` for a label that is no class, or a class of the test set that can never be predicted."""
    for name, labels in dict(train_y=train_y, test_y=test_y).items():
        if len(labels) and labels.min() < 0:
            raise ConfigError(
                f'{name}: label {int(labels.min())} is not a class, they start at 0: leave such images out'
            )
    missing = sorted(set(test_y.unique().tolist()) - set(train_y.unique().tolist()))
    if missing:
        raise ConfigError(f'train_y: no training image of class {missing[:10]}, which the test set has: add some')


def _check(
    train_x: Features, train_y: Tensor, test_x: Features, k: int, temperature: float | None, metric: str
) -> None:
    check_features('train_x', train_x, train_y)
    check_features('test_x', test_x)
    if k > train_x.shape[0]:
        raise ConfigError(f'k={k}: there are only {train_x.shape[0]} training samples: lower k')
    if train_x.shape[1] != test_x.shape[1]:
        raise ConfigError(f'test_x: {test_x.shape[1]} features a row, but train_x has {train_x.shape[1]}')
    if temperature is not None and (metric != 'cosine' or temperature <= 0):
        raise ConfigError(f"temperature={temperature}: weighted votes need metric='cosine' and a positive temperature")
