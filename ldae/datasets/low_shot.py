# SPDX-License-Identifier: Apache-2.0
"""A part of each class: which images low-shot probes are trained on."""

import torch
from torch import Tensor

from ldae.utils import ConfigError, check_range


def part_of_each_class(labels: Tensor, fraction: float, seed: int, where: str) -> Tensor:
    """Ascending numbers of ``round(fraction * n)`` images, at least one, of each class with n images.

    Depends on the order of the images and the seed alone. Of one seed, a smaller part lies within a larger one.

    Args:
        labels: (n,) integers.
        fraction: Above 0, up to 1.
        seed: 0 to 2^31 - 1.
        where: What the options belong to, for messages.

    Raises:
        ConfigError: An option out of range, or no images.
    """
    check_range(f'{where}.fraction', fraction, 1e-6, 1)
    check_range(f'{where}.fraction_seed', seed, 0, 2**31 - 1, kind=int)
    if not len(labels):
        raise ConfigError(f'{where}.fraction: there are no images to take a part of')
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for label in labels.unique():
        numbers = (labels == label).nonzero().flatten()
        order = torch.randperm(len(numbers), generator=generator)
        chosen.append(numbers[order[: max(1, round(fraction * len(numbers)))]])
    return torch.cat(chosen).sort().values
