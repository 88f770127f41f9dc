# SPDX-License-Identifier: Apache-2.0
"""Batches of latents, beside batches of images."""

from typing import Any

from mmengine.model import BaseDataPreprocessor
from torch import Tensor, nn


def are_latents(inputs: object) -> bool:
    """Whether a batch's inputs are latents (B, N, d), not images (B, C, H, W)."""
    return isinstance(inputs, Tensor) and inputs.dim() == 3 and inputs.is_floating_point()


class LatentsPass(BaseDataPreprocessor):
    """A model's data preprocessor, which latents go past: they are only moved to the device.

    Whatever else it is asked for, such as ``mean``, is that of ``images``, which prepares images.
    """

    def __init__(self, images: nn.Module) -> None:
        super().__init__(getattr(images, '_non_blocking', False))
        self.images = images

    def forward(self, data: dict, training: bool = False) -> dict:
        """A batch ``dict(inputs, data_samples)`` as the model takes it."""
        return self.cast_data(data) if are_latents(data['inputs']) else self.images(data, training)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == 'images':
                raise
            return getattr(self.images, name)
