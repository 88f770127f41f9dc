# SPDX-License-Identifier: Apache-2.0
"""Small images in memory, served and augmented a whole batch at a time (no Python per image)."""

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from ldae.utils import ConfigError, NaturalInt, PositiveInt, Range, Seed, checked
from ldae.utils.rng import Draws

from .low_shot import Fraction, samples_of, subset

LOG_RATIOS = (math.log(3 / 4), math.log(4 / 3))
ATTEMPTS = 10


Area = Annotated[float, Range(1e-3, 1)]


class Rising:
    """Mark of an option that is a list of numbers, none of them below the one before it."""

    def check(self, place: str, value: Sequence[float], kind: type) -> None:
        if list(value) != sorted(value):
            raise ConfigError(f'{place}={list(value)} must rise from the first number to the last')


#: Least and greatest area of a random resized crop, relative to the image.
CropScale = Annotated[tuple[Area, Area], Rising()]


class InMemoryDataset(Dataset):
    """Images and labels that a subclass has read.

    ``dataset[i]`` and, through ``__getitems__``, a DataLoader's batch are both ``dict(inputs=uint8 (B, C, H, W),
    data_samples=list[DataSample] or None)``; a DataLoader needs ``collate_fn=dict(type='ldae.batch_collate')``. Raises
    ConfigError for an option out of range.

    Args:
        images: uint8 (n, C, H, W).
        labels: (n,).
        indices: Only the first so many images (int) or those named (sequence).
        with_label: Whether samples carry ``gt_label``.
        pad: Pixels of value 0 added on each side.
        crop_scale: Range of the area of random resized crops, relative to the image; None takes whole images.
        fraction: Part of each class's images to keep, above 0 and up to 1, of those that ``indices`` leaves. None: all.
        fraction_seed: Chooses them.
    """

    @checked
    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        indices: PositiveInt | Sequence[int] | None = None,
        with_label: bool = True,
        pad: NaturalInt = 0,
        crop_scale: CropScale | None = None,
        fraction: Fraction | None = None,
        fraction_seed: Seed = 0,
    ) -> None:
        keep = subset(len(images), labels, indices, fraction, fraction_seed, type(self).__name__)
        keep = slice(None) if keep is None else keep
        self.images, self.labels = F.pad(images[keep], [pad] * 4), labels[keep].long()
        self.with_label, self.crop_scale = with_label, crop_scale

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> dict:
        """The batch at ``indices``."""
        keep = torch.as_tensor(indices)
        inputs = self.images[keep]
        if self.crop_scale is not None:
            if isinstance(indices, Draws):
                indices.seed_batch()
            inputs = resized_crop(inputs, random_boxes(len(inputs), *inputs.shape[2:], self.crop_scale))
        samples = samples_of(keep.tolist(), self.labels[keep]) if self.with_label else None
        return dict(inputs=inputs, data_samples=samples)


def random_boxes(count: int, height: int, width: int, scale: Sequence[float]) -> Tensor:
    """Boxes (count, 4) of a random resized crop: top, left, height, width in whole pixels.

    As torchvision draws them, from torch's generator: area uniform in ``scale``, the logarithm of the aspect ratio in
    that of 3/4 to 4/3, the first of ten attempts that fits; else the whole image, which has an allowed ratio here."""
    area = height * width * torch.empty(ATTEMPTS, count).uniform_(*scale)
    ratio = torch.empty(ATTEMPTS, count).uniform_(*LOG_RATIOS).exp()
    size = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()]).round().long()  # (2, attempts, count)
    full = torch.tensor([height, width]).view(2, 1)
    fits = ((size > 0) & (size <= full.unsqueeze(1))).all(dim=0)
    first = fits.int().argmax(dim=0)  # (count,)
    size = torch.where(fits.any(dim=0), size[:, first, torch.arange(count)], full)
    # Uniform over the places that a box has: 0 to full - size.
    corner = (torch.rand(2, count) * (full - size + 1)).long()
    return torch.cat([corner, size]).t()


def resized_crop(images: Tensor, boxes: Tensor) -> Tensor:
    """Crop each of uint8 images (B, C, H, W) to its box and bring it back to (H, W), bilinearly.

    Boxes are no larger than the image, so nothing is scaled down and no antialiasing is due."""
    height, width = images.shape[2:]
    top, left, box_height, box_width = boxes.t()
    rows, columns = _interpolation(top, box_height, height), _interpolation(left, box_width, width)
    resized = torch.einsum('bih,bchw,bjw->bcij', rows, images.float(), columns)
    return resized.round().clamp(0, 255).to(torch.uint8)


def _interpolation(start: Tensor, length: Tensor, size: int) -> Tensor:
    """(B, size, size): row i holds the weights of the pixels that output pixel i is interpolated from."""
    pixels = torch.arange(size)
    inside = ((pixels + 0.5) * (length / size).unsqueeze(1) - 0.5).clamp(min=0)
    # Beyond the last pixel of the box nothing is mixed in, as if the box were an image of its own.
    place = start.unsqueeze(1) + torch.minimum(inside, (length - 1).unsqueeze(1))
    return (1 - (place.unsqueeze(2) - pixels).abs()).clamp(min=0)
