# SPDX-License-Identifier: Apache-2.0
"""Small images in memory, served and augmented a whole batch at a time (no Python per image)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from ldae.utils import ConfigError, NaturalInt, PositiveInt, Seed, Share, checked
from ldae.utils.rng import Draws
from ldae.utils.signatures import check_arguments

from .low_shot import Fraction, samples_of, subset
from .views import CropScale, View, random_boxes, resized_crop


class InMemoryDataset(Dataset):
    """Images and labels that a subclass has read.

    ``dataset[i]`` and, through ``__getitems__``, a DataLoader's batch are both ``dict(inputs=uint8 (B, C, H, W),
    data_samples=list[DataSample] or None)``, with ``views`` a list of such inputs; a DataLoader needs
    ``collate_fn=dict(type='ldae.batch_collate')``. Raises ConfigError for an option out of range.

    Args:
        images: uint8 (n, C, H, W).
        labels: (n,).
        indices: Only the first so many images (int) or those named (sequence).
        with_label: Whether samples carry ``gt_label``.
        pad: Pixels of value 0 added on each side.
        crop_scale: Range of the area of random resized crops, relative to the image; None takes whole images.
        flip: Share of the images that are flipped left to right, each anew each time.
        views: Options of :class:`ldae.datasets.views.View`, one dict a view: ``inputs`` is a list of random views of each image,
            as contrastive methods compare them. None: the images themselves.
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
        flip: Share = 0.0,
        views: Sequence[Mapping] | None = None,
        fraction: Fraction | None = None,
        fraction_seed: Seed = 0,
    ) -> None:
        keep = subset(len(images), labels, indices, fraction, fraction_seed, type(self).__name__)
        keep = slice(None) if keep is None else keep
        self.images, self.labels = F.pad(images[keep], [pad] * 4), labels[keep].long()
        self.with_label, self.crop_scale, self.flip = with_label, crop_scale, flip
        if views and self.is_drawn:
            raise ConfigError(
                f'{type(self).__name__}: views have a crop_scale each, and a flip: remove the one beside them'
            )
        for i, view in enumerate(views or ()):
            check_arguments(f'{type(self).__name__}.views[{i}]', View, view)
        self.views = [View(**view) for view in views or ()]

    @property
    def is_drawn(self) -> bool:
        """Whether images of a batch are augmented, by draws that they share."""
        return self.crop_scale is not None or self.flip > 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> dict:
        """The batch at ``indices``."""
        keep = torch.as_tensor(indices)
        inputs = self.images[keep]
        if isinstance(indices, Draws) and (self.views or self.is_drawn):
            indices.seed_batch()
        if self.views:
            inputs = [view(inputs) for view in self.views]
        if self.crop_scale is not None:
            inputs = resized_crop(inputs, random_boxes(len(inputs), *inputs.shape[2:], self.crop_scale))
        if self.flip:
            inputs = torch.where(torch.rand(len(inputs), 1, 1, 1) < self.flip, inputs.flip(3), inputs)
        samples = samples_of(keep.tolist(), self.labels[keep]) if self.with_label else None
        return dict(inputs=inputs, data_samples=samples)
