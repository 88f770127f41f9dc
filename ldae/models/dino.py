# SPDX-License-Identifier: Apache-2.0
"""DINO: lightly's loss and projection head, mmpretrain's encoder and cosine average."""

import warnings
from collections.abc import Sequence
from itertools import groupby
from typing import Annotated

import torch
from mmcv.cnn.bricks import DropPath
from mmengine.logging import MessageHub
from mmengine.model import BaseModule
from mmpretrain.models import BaseSelfSupervisor
from mmpretrain.models.utils import CosineEMA
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ldae.registry import MODELS
from ldae.utils import PositiveInt, Range, Share, checked
from ldae.utils.optional import import_extra

Temperature = Annotated[float, Range(1e-3)]


@MODELS.register_module()
class DINOProjection(BaseModule):
    """lightly's DINOProjectionHead, behind an encoder that gives its class token.

    Args:
        in_channels, hid_channels, out_channels: Widths of the encoder, of the hidden layers, and before the last layer.
        num_prototypes: Outputs.
        norm_last_layer: Keep the norms of the last layer's weights at 1.
    """

    @checked
    def __init__(
        self,
        in_channels: PositiveInt = 768,
        hid_channels: PositiveInt = 2048,
        out_channels: PositiveInt = 256,
        num_prototypes: PositiveInt = 65536,
        norm_last_layer: bool = True,
    ) -> None:
        super().__init__()
        heads = import_extra('lightly.models.modules.heads', 'dino', 'ldae.DINO')
        widths = (in_channels, hid_channels, out_channels, num_prototypes)
        # Or its normalised weight would be a part of a graph, which can't be copied.
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter('ignore', FutureWarning)  # torch has another way to normalise it
            self.head = heads.DINOProjectionHead(*widths, norm_last_layer=norm_last_layer)
        self.is_frozen = False
        for param in self.head.last_layer.parameters():
            if param.requires_grad:
                param.register_hook(lambda grad: torch.zeros_like(grad) if self.is_frozen else grad)

    def forward(self, x: tuple[Tensor, ...]) -> tuple[Tensor]:
        out = self.head(x[-1])
        # The normalised weight, which torch keeps as an attribute, again.
        self.head.last_layer.weight = self.head.last_layer.weight.detach()
        return (out,)


@MODELS.register_module()
class DINO(BaseSelfSupervisor):
    """Self-distillation without labels (arXiv 2104.14294): the first two views of an image go through an average of the encoder,
    the teacher, whose outputs the encoder learns to give for all other views. ``inputs`` is a list of views, of which
    neighbours of one size are encoded together.

    Args:
        head: Config of lightly's DINOLoss without ``output_dim``: ``student_temp``, ``center_momentum``.
        base_momentum: Weight of the encoder in the teacher at the first step, which falls to 0 by a cosine.
        teacher_temp: Temperature of the teacher's outputs, from the first value to the second.
        warm_up: Share of the training in which it gets there.
        freeze_last_layer: Share of the training in which the projection's last layer isn't trained.
        backbone, neck, data_preprocessor, init_cfg: As of mmpretrain's other methods; ``neck`` is a :class:`DINOProjection`.
    """

    @checked
    def __init__(
        self,
        backbone: dict,
        neck: dict,
        head: dict | None = None,
        base_momentum: Share = 0.004,
        teacher_temp: tuple[Temperature, Temperature] = (0.04, 0.07),
        warm_up: Share = 0.125,
        freeze_last_layer: Share = 0.0075,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(backbone, neck=neck, data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        loss = import_extra('lightly.loss', 'dino', 'ldae.DINO').DINOLoss
        self.head = loss(self.neck.head.last_layer.out_features, **(head or {}))
        self.teacher_temp, self.warm_up, self.freeze_last_layer = teacher_temp, warm_up, freeze_last_layer
        self.teacher = CosineEMA(nn.Sequential(self.backbone, self.neck), momentum=base_momentum)
        for part in self.teacher.modules():  # as its authors' teacher, which drops none of its paths
            if isinstance(part, DropPath):
                part.drop_prob = 0.0

    def running_buffers(self) -> list[tuple[nn.Module, str]]:
        """The center of the teacher's outputs, by module and name, which the loss moves."""
        return [(part, name) for part in self.head.modules() for name, _ in part.named_buffers(recurse=False)]

    def loss(self, inputs: list[Tensor], data_samples: list[DataSample] | None = None, **_) -> dict[str, Tensor]:
        """Cross-entropy of all pairs of a whole view's teacher and another view."""
        hub, network = MessageHub.get_current_instance(), nn.Sequential(self.backbone, self.neck)
        progress = hub.get_info('iter', 0) / hub.get_info('max_iters')
        self.neck.is_frozen = progress < self.freeze_last_layer
        with torch.no_grad():
            self.teacher.update_parameters(network)
            taught = _encode(self.teacher, inputs[:2])
        first, last = self.teacher_temp
        temperature = first + (last - first) * (min(1, progress / self.warm_up) if self.warm_up else 1)
        return dict(loss=self.head(taught, _encode(network, inputs), teacher_temp=temperature))


def _encode(network: nn.Module, views: Sequence[Tensor]) -> list[Tensor]:
    found: list[Tensor] = []
    for _, group in groupby(views, key=lambda view: view.shape[1:]):
        same = list(group)
        found += network(torch.cat(same))[0].chunk(len(same))
    return found
