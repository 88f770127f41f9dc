# SPDX-License-Identifier: Apache-2.0
"""LPIPS as a training loss; and the adversarial loss of VQGAN and LDM: a discriminator of patches, and how much it weighs."""

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from ldae.utils import ConfigError, NaturalInt, PositiveInt, Range, checked
from ldae.utils.optional import import_extra

SLOPE = 0.2


class PatchDiscriminator(BaseModule):
    """PatchGAN: images (B, C, H, W) -> a logit for each of many overlapping patches, (B, 1, h, w).

    Strided 4 x 4 convolutions with BatchNorm, pix2pix's widths and initialisation: ``base_channels`` in the first
    layer, doubled in each of the next three. 3 layers of stride 2 give patches of 70 x 70 pixels."""

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
        """The generator's weighted loss on reconstructed images, and the weight, by comparing gradients at
        ``last_layer`` with those of ``other_loss``, what it minimises besides, without KL. No gradient reaches the
        discriminator."""
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


VGG_FILE = 'vgg16-397923af.pth'
VGG_URL = f'https://download.pytorch.org/models/{VGG_FILE}'


class PerceptualLoss(BaseModule):
    """Distance of two batches of images (B, C, H, W) in [-1, 1] in the features of VGG-16: LPIPS, one value an image (B,).

    The weights of LPIPS's linear layers are part of the library ``lpips``; those of VGG-16 are torchvision's and not.
    Raises ConfigError if the library, or later the file, is missing.

    Args:
        weight: Of the loss.
        backbone: torchvision's file of VGG-16, or ``'random'`` for weights that mean nothing; by default the file is looked
            for where torch.hub keeps its downloads.
    """

    @checked
    def __init__(self, weight: Annotated[float, Range(0)] = 1.0, backbone: str | None = None) -> None:
        super().__init__()
        self.weight, self.backbone = weight, backbone
        self._lpips = import_extra('lpips', 'perceptual', 'the perceptual loss')
        self.net = self._build()
        self.requires_grad_(False)
        self.register_buffer('loaded', torch.tensor(0))
        self._known_loaded = False  # spares a step the wait for the device

    def _build(self) -> nn.Module:
        """LPIPS without weights: on its way it initialises a classifier of 124 M parameters that nothing needs."""
        with warnings.catch_warnings(), torch.device('meta'):
            # It calls torchvision in a way that is out of date.
            warnings.simplefilter('ignore')
            net = self._lpips.LPIPS(pretrained=False, net='vgg', pnet_rand=True, verbose=False)
        net.to_empty(device=torch.get_default_device())
        net.scaling_layer = type(net.scaling_layer)()  # constants
        return net

    def init_weights(self) -> None:
        """Load the weights; training calls it before the first step."""
        linear = Path(inspect.getfile(self._lpips)).parent / 'weights' / 'v0.1' / 'vgg.pth'
        self.net.load_state_dict(torch.load(linear, map_location='cpu', weights_only=True), strict=False)
        if self.backbone == 'random':
            for module in (part for part in self.net.net.modules() if isinstance(part, nn.Conv2d)):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
                nn.init.zeros_(module.bias)
        else:
            load_vgg(self.net.net, self.backbone)
        self.loaded.fill_(1)
        self._known_loaded = True

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        self._known_loaded = self._known_loaded or bool(self.loaded)
        if not self._known_loaded:
            raise ConfigError('the perceptual loss has no weights yet: call init_weights() of the model first')
        if images.shape[1] == 1:
            images, others = images.expand(-1, 3, -1, -1), others.expand(-1, 3, -1, -1)
        return self.net(images, others).flatten()

    def train(self, mode: bool = True) -> 'PerceptualLoss':
        """Stay in evaluation mode: its linear layers have dropout."""
        return super().train(False)


def load_vgg(net: nn.Module, path: str | None) -> None:
    """Fill lpips's slices of VGG-16 from torchvision's file."""
    file = Path(path).expanduser() if path else Path(torch.hub.get_dir(), 'checkpoints', VGG_FILE)
    if not file.is_file():
        raise ConfigError(
            f'the perceptual loss needs the weights of VGG-16, and {file} does not exist: download {VGG_URL} and name the '
            'file in model.perceptual.backbone'
        )
    try:
        state = torch.load(file, map_location='cpu', weights_only=True)
        # `slice2.5.weight` is torchvision's `features.5.weight`.
        net.load_state_dict({key: state['features.' + key.partition('.')[2]] for key in net.state_dict()})
    except Exception as error:  # whatever is in the file
        raise ConfigError(f"{file} is not torchvision's VGG-16 ({type(error).__name__}): download {VGG_URL}") from error
