# SPDX-License-Identifier: Apache-2.0
"""k-nearest-neighbour classification of frozen features, in blocks, on any device."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ldae.utils import ConfigError, check_choice, check_range

METRICS = ('cosine', 'euclidean')


def knn_classify(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    k: int = 20,
    temperature: float | None = 0.07,
    metric: str = 'cosine',
    block_size: int = 1024,
) -> Tensor:
    """Predict labels (m,) for ``test_x`` (m, C) from the k nearest of ``train_x`` (n, C), ``train_y`` (n,).

    Neighbours vote with weight exp(similarity / temperature), as in instance discrimination (Wu et al., 2018) and DINO.

    Args:
        k: Number of neighbours.
        temperature: None gives each neighbour one vote; the smaller label wins a tie, as in scikit-learn.
        metric: ``'cosine'`` or ``'euclidean'`` (which has one vote each).
        block_size: Test rows at a time; memory is that of ``block_size x 16 block_size`` similarities.

    Raises:
        ConfigError: More neighbours than samples, features that aren't finite, or shapes that don't fit.
    """
    _check(train_x, train_y, test_x, k, temperature, metric)
    train_y = train_y.to(train_x.device)
    similarity, index = nearest_neighbours(train_x, test_x, k, metric, block_size)
    return vote(similarity, train_y[index], temperature)


def knn_accuracy(train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor, **kwargs) -> float:
    """Percentage of ``test_y`` that :func:`knn_classify` predicts; takes its options."""
    check_classes(train_y, test_y)
    predicted = knn_classify(train_x, train_y, test_x, **kwargs)
    return accuracy(predicted, test_y)


def nearest_neighbours(
    train_x: Tensor, test_x: Tensor, k: int, metric: str = 'cosine', block_size: int = 1024
) -> tuple[Tensor, Tensor]:
    """Similarities and indices (m, k) of the k nearest training rows, nearest first.

    The similarity is the cosine, or for ``'euclidean'`` x.y - |y|^2 / 2, which orders rows y as their distance to x does.
    """
    if metric == 'cosine':
        train_x, test_x, offset = F.normalize(train_x, dim=1), F.normalize(test_x, dim=1), None
    else:
        # Centring moves no distance and keeps the digits that a far-away mean would take from the product.
        mean = train_x.mean(dim=0)
        train_x, test_x = train_x - mean, test_x - mean
        offset = train_x.square().sum(dim=1) / 2
    blocks = [
        _nearest_in_blocks(train_x, offset, rows, k, 16 * block_size) for rows in test_x.split(block_size)
    ]
    return torch.cat([b[0] for b in blocks]), torch.cat([b[1] for b in blocks])


def _nearest_in_blocks(
    train_x: Tensor, offset: Tensor | None, test_x: Tensor, k: int, block_size: int
) -> tuple[Tensor, Tensor]:
    best, best_index = None, None
    for start in range(0, len(train_x), block_size):
        similarity = test_x @ train_x[start : start + block_size].t()
        if offset is not None:
            similarity -= offset[start : start + block_size]
        top, index = similarity.topk(min(k, similarity.shape[1]), dim=1)
        index += start
        if best is not None:
            top, index = torch.cat([best, top], dim=1), torch.cat([best_index, index], dim=1)
            top, order = top.topk(min(k, top.shape[1]), dim=1)
            index = index.gather(1, order)
        best, best_index = top, index
    return best, best_index


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


def check_features(name: str, features: Tensor, labels: Tensor | None = None) -> None:
    """Raise :class:`ConfigError` unless features are a finite (n, C) with one label each."""
    if features.dim() != 2 or (labels is not None and len(labels) != len(features)):
        shape = None if labels is None else tuple(labels.shape)
        raise ConfigError(
            f'{name}: features {tuple(features.shape)}, labels {shape}: expected (n, C) and (n,)'
        )
    if not torch.isfinite(features).all():
        bad = int((~torch.isfinite(features)).any(dim=1).sum())
        raise ConfigError(
            f'{name}: {bad} of {len(features)} feature rows hold NaN or infinity: check the checkpoint'
        )


def check_classes(train_y: Tensor, test_y: Tensor) -> None:
    """Raise :class:`ConfigError` if a class of the test set can never be predicted."""
    missing = sorted(set(test_y.unique().tolist()) - set(train_y.unique().tolist()))
    if missing:
        raise ConfigError(
            f'train_y: no training image of class {missing[:10]}, which the test set has: add some'
        )


def _check(
    train_x: Tensor, train_y: Tensor, test_x: Tensor, k: int, temperature: float | None, metric: str
) -> None:
    check_choice('metric', metric, METRICS)
    check_range('k', k, 1, kind=int)
    check_features('train_x', train_x, train_y)
    check_features('test_x', test_x)
    if k > len(train_x):
        raise ConfigError(f'k={k}: there are only {len(train_x)} training samples: lower k')
    if train_x.shape[1] != test_x.shape[1]:
        raise ConfigError(f'test_x: {test_x.shape[1]} features a row, but train_x has {train_x.shape[1]}')
    if temperature is not None and (metric != 'cosine' or temperature <= 0):
        raise ConfigError(
            f"temperature={temperature}: weighted votes need metric='cosine' and a positive temperature"
        )
