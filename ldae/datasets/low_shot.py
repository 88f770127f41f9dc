# SPDX-License-Identifier: Apache-2.0
"""A part of each class: which images low-shot probes are trained on, and which are shown."""

from collections.abc import Sequence
from typing import Annotated

import torch
from mmpretrain.structures import DataSample
from torch import Tensor

from ldae.utils import Choice, ConfigError, Range

#: Options of data sets: which images, and the part of each class's.
Split = Annotated[str, Choice('train', 'val', 'test')]
Fraction = Annotated[float, Range(1e-6, 1)]


def subset(
    count: int,
    labels: Tensor | None,
    indices: int | Sequence[int] | None,
    fraction: float | None,
    seed: int,
    where: str,
) -> Tensor | None:
    """Numbers of the images that a data set's options leave of ``count`` with ``labels`` (count,): only the first so
    many or those named (``indices``), and of those a part of each class (:func:`part_of_each_class`); None for all.
    ``where`` is the data set, for messages."""
    if indices is None and fraction is None:
        return None
    keep = torch.arange(count)
    if indices is not None and not isinstance(indices, int):
        chosen = torch.as_tensor(list(indices), dtype=torch.long)
        if chosen.numel() and not -count <= chosen.min() <= chosen.max() < count:
            raise ConfigError(f'{where}.indices must lie below {count}, the number of images')
        keep = keep[chosen]
    elif indices is not None:
        keep = keep[:indices]
    if fraction is None:
        return keep
    if labels is None:
        raise ConfigError(f'{where}.fraction is a part of each class: it needs with_label=True')
    return keep[part_of_each_class(labels[keep], fraction, seed, where)]


def samples_of(numbers: Sequence[int], labels: Tensor | None) -> list[DataSample]:
    """Samples of images by their numbers, with labels (n,) or without."""
    samples = [DataSample(metainfo=dict(sample_idx=number)) for number in numbers]
    for sample, label in zip(samples, () if labels is None else labels, strict=labels is not None):
        sample.set_gt_label(label)
    return samples


def part_of_each_class(labels: Tensor, fraction: float, seed: int, where: str) -> Tensor:
    """Ascending numbers of ``round(fraction * n)`` images, at least one, of each class with n images of ``labels``
    (n,).

    Depends on the order of the images and the seed alone. Of one seed, a smaller part lies within a larger one.
    Raises ConfigError, naming ``where``, if there are no images."""
    if not len(labels):
        raise ConfigError(f'{where}.fraction: there are no images to take a part of')
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for label in labels.unique():
        numbers = (labels == label).nonzero().flatten()
        order = torch.randperm(len(numbers), generator=generator)
        chosen.append(numbers[order[: max(1, round(fraction * len(numbers)))]])
    return torch.cat(chosen).sort().values


def some_of_each_class(labels: Tensor, count: int, seed: int, where: str) -> Tensor:
    """Ascending numbers of ``count`` images, 1 to n, of each class of ``labels`` (n,) in proportion to its size and at
    least one.

    Depends on the order of the images and the seed alone. Raises ConfigError, naming ``where``, if ``count`` is less
    than the number of classes."""
    _, labels, sizes = labels.unique(return_inverse=True, return_counts=True)
    if count < len(sizes):
        raise ConfigError(f'{where}={count} leaves no image of some of the {len(sizes)} classes: allow {len(sizes)}')
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = order[labels[order].argsort(stable=True)]  # by class, shuffled inside each
    first = (sizes.cumsum(0) - sizes)[labels[order]]
    place = torch.arange(len(order)) - first
    # The first of each class, then all by how far through their class they are.
    rank = torch.where(place == 0, -1.0, (place + 0.5).double() / sizes[labels[order]])
    return order[rank.argsort(stable=True)[:count]].sort().values


def spread_over_classes(labels: Tensor, count: int) -> list[int]:
    """Numbers of at most ``count`` images, by class: of as many classes as may be, of each as many as of another, evenly spaced
    over classes and within each."""
    members = [(labels == label).nonzero().flatten().tolist() for label in labels.unique()]
    shares = [0] * len(members)
    while (left := min(count, len(labels)) - sum(shares)) > 0:
        for k in evenly([k for k, numbers in enumerate(members) if shares[k] < len(numbers)], left):
            shares[k] += 1
    return [number for numbers, share in zip(members, shares, strict=True) for number in evenly(numbers, share)]


def evenly(items: Sequence, count: int) -> list:
    """At most ``count`` of some items, in their order, from the first on."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]
