# SPDX-License-Identifier: Apache-2.0
"""The adversarial loss of VQGAN and LDM: a discriminator of patches, and how much it weighs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from ldae.utils import NaturalInt, PositiveInt, Range, checked

SLOPE = 0.2


class PatchDiscriminator(BaseModule):
    """PatchGAN: images (B, C, H, W) -> a logit for each of many overlapping patches, (B, 1, h, w).

    Strided 4 x 4 convolutions with BatchNorm, pix2pix's widths and initialisation.

    Args:
        in_channels: Image channels.
        base_channels: Width of the first layer, doubled in each of the next three.
        num_layers: Layers of stride 2; 3 give patches of 70 x 70 pixels.
    """

    def __init__(self, in_channels: int, base_channels: int = 64, num_layers: int = 3) -> None:
        super().__init__()
        widths = [base_channels * min(2**i, 8) for i in range(num_layers + 1)]
        layers = [nn.Conv2d(in_channels, widths[0], 4, 2, 1), nn.LeakyReLU(SLOPE, inplace=True)]
        for i in range(1, num_layers + 1):
            stride = 2 if i < num_layers else 1
            layers += [
                nn.Conv2d(widths[i - 1], widths[i], 4, stride, 1, bias=False),
                nn.BatchNorm2d(widths[i]),
                nn.LeakyReLU(SLOPE, inplace=True),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1))
        self.init_weights()

    def init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)
            if getattr(module, 'bias', None) is not None:
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class AdversarialLoss(nn.Module):
    """Both sides of the game. The module's parameters are the discriminator's alone.

    Args:
        in_channels: Image channels.
        weight: What the adaptive weight is multiplied by.
        start_step: Updates of the weights before which there is no discriminator, neither trained nor heard.
        base_channels, num_layers: See :class:`PatchDiscriminator`.
    """

    @checked
    def __init__(
        self,
        in_channels: int,
        weight: Annotated[float, Range(0)] = 0.5,
        start_step: NaturalInt = 50_001,
        base_channels: PositiveInt = 64,
        num_layers: PositiveInt = 3,
    ) -> None:
        super().__init__()
        self.weight, self.start_step = weight, start_step
        self.discriminator = PatchDiscriminator(in_channels, base_channels, num_layers)

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """The discriminator's loss."""
        return hinge_loss(self.discriminator(real), self.discriminator(fake.detach()))

    def for_generator(self, fake: Tensor, other_loss: Tensor, last_layer: nn.Parameter) -> tuple[Tensor, Tensor]:
        """The generator's weighted loss, and the weight. No gradient reaches the discriminator.

        Args:
            fake: Reconstructed images.
            other_loss: What the generator minimises besides, without KL.
            last_layer: Where the gradients of both are compared.
        """
        with frozen(self.discriminator):
            loss = -self.discriminator(fake).mean()
        weight = self.weight * adaptive_weight(other_loss, loss, last_layer)
        return weight * loss, weight


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """``(mean max(0, 1 - real) + mean max(0, 1 + fake)) / 2`` of logits."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def adaptive_weight(other_loss: Tensor, adversarial_loss: Tensor, last_layer: nn.Parameter) -> Tensor:
    """``|grad other_loss| / (|grad adversarial_loss| + 1e-4)`` at ``last_layer``, at most 1e4: VQGAN's equation 7."""
    norms = [
        torch.autograd.grad(loss, last_layer, retain_graph=True)[0].norm() for loss in (other_loss, adversarial_loss)
    ]
    return (norms[0] / (norms[1] + 1e-4)).clamp(max=1e4).detach()


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Gradients pass through the module and leave its parameters alone."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
