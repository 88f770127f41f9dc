# SPDX-License-Identifier: Apache-2.0
"""LPIPS as a training loss."""

import inspect
import warnings
from pathlib import Path
from typing import Annotated

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from ldae.utils import ConfigError, Range, checked
from ldae.utils.optional import import_extra

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
            draw_vgg(self.net.net)
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
        del mode
        return super().train(False)


def draw_vgg(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
            nn.init.zeros_(module.bias)


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
