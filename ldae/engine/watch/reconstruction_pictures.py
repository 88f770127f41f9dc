# SPDX-License-Identifier: Apache-2.0
"""Pictures of reconstructed images while a tokenizer is trained."""

from torch import Tensor, nn

from ldae.registry import HOOKS
from ldae.utils import PositiveInt
from ldae.visualization import reconstruction_grid

from .denoising_pictures import DenoisingPicturesHook


@HOOKS.register_module()
class ReconstructionPicturesHook(DenoisingPicturesHook):
    """Save validation images and their reconstructions after every ``interval`` epochs and after the last.

    The pictures are ``pictures/epoch_N.png`` in the work dir and ``reconstruction`` in the visualizer.

    Args:
        interval, num_images, dataloader: See :class:`DenoisingPicturesHook`.
    """

    name = 'reconstruction'

    def __init__(
        self, interval: PositiveInt = 1, num_images: PositiveInt = 8, dataloader: dict | None = None
    ) -> None:
        super().__init__(interval, num_images, dataloader=dataloader)

    def draw(self, model: nn.Module, images: Tensor):
        samples = model.predict(images)
        columns = ([sample.get(key) for sample in samples] for key in ('clean', 'reconstructed'))
        return reconstruction_grid(*columns)
