# SPDX-License-Identifier: Apache-2.0
"""Batches of latents, beside batches of images."""

from typing import Any

from mmengine.model import BaseDataPreprocessor
from torch import Tensor, nn

from ldae.compat import copy_images_without_waiting

copy_images_without_waiting()


def are_latents(inputs: object) -> bool:
    """Whether a batch's inputs are latents (B, N, d), not images (B, C, H, W)."""
    return isinstance(inputs, Tensor) and inputs.dim() == 3 and inputs.is_floating_point()


class LatentsPass(BaseDataPreprocessor):
    """A model's data preprocessor, which latents go past: they are only moved to the device.

    Whatever else it is asked for, such as ``mean``, is that of ``images``, which prepares images."""

    def __init__(self, images: nn.Module) -> None:
        super().__init__(non_blocking=True)
        self.images = images

    def forward(self, data: dict, training: bool = False) -> dict:
        """A batch ``dict(inputs, data_samples)`` as the model takes it; samples stay where they are, and whoever needs their
        labels brings them to the device in one piece."""
        inputs = data['inputs']
        if are_latents(inputs):
            inputs = self.cast_data(inputs)
        else:
            inputs = self.images(dict(inputs=inputs, data_samples=None), training)['inputs']
        return dict(inputs=inputs, data_samples=data.get('data_samples'))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == 'images':
                raise
            return getattr(self.images, name)
