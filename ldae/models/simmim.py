# SPDX-License-Identifier: Apache-2.0
"""SimMIM on a ViT: mmpretrain's is for Swin, whose data pipeline draws the masks; here the model does."""

import math

import torch
from mmengine.model import BaseModule
from mmpretrain.models import SimMIM as SwinSimMIM
from mmpretrain.models import VisionTransformer
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ldae.registry import MODELS
from ldae.utils import ConfigError, PositiveInt, Share, checked


@MODELS.register_module()
class SimMIMViT(VisionTransformer):
    """mmpretrain's VisionTransformer, with a learned vector in place of masked patches.

    Raises ConfigError for squares that aren't whole patches, or that the image is no whole number of.

    Args:
        patch_size: Height and width of a patch in pixels.
        mask_patch_size: Of the squares that are masked whole.
        mask_ratio: Share of the squares that are masked, rounded up.
        **kwargs: As of VisionTransformer; ``out_type`` is ``'featmap'`` for the decoder.
    """

    @checked
    def __init__(
        self, patch_size: PositiveInt = 16, mask_patch_size: PositiveInt = 32, mask_ratio: Share = 0.6, **kwargs
    ) -> None:
        super().__init__(patch_size=patch_size, **kwargs)
        self.mask_patch_size, self.mask_ratio = mask_patch_size, mask_ratio
        if mask_patch_size % patch_size or any(side % mask_patch_size for side in self.img_size):
            raise ConfigError(
                f'SimMIMViT.mask_patch_size={mask_patch_size} must be a multiple of the patch size, {patch_size}, and divide the '
                f'image size, {self.img_size[0]}'
            )
        self.mask_token = nn.Parameter(torch.zeros(1, 1, self.embed_dims))

    def init_weights(self) -> None:
        """mmpretrain's, and a mask token as its positions are."""
        super().init_weights()
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def random_mask(self, count: int) -> Tensor:
        """Which patches of so many images are masked: bool (count, H/p, W/p), by torch's generator."""
        grid = [side // self.mask_patch_size for side in self.img_size]
        order = torch.rand(count, math.prod(grid), device=self.mask_token.device).argsort(1).argsort(1)
        mask = (order < math.ceil(self.mask_ratio * math.prod(grid))).view(count, *grid)
        scale = self.patch_resolution[0] // grid[0]
        return mask.repeat_interleave(scale, 1).repeat_interleave(scale, 2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Encode images (B, C, H, W), the patches of ``mask`` unseen."""
        if mask is None:
            return super().forward(x)
        x, _ = self.patch_embed(x)
        x = torch.where(mask.flatten(1).unsqueeze(2), self.mask_token.to(x.dtype), x)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        x = self.pre_norm(self.drop_after_pos(x + self.pos_embed))
        for layer in self.layers:
            x = layer(x)
        return (self._format_output(self.ln1(x) if self.final_norm else x, self.patch_resolution),)


@MODELS.register_module()
class SimMIMDecoder(BaseModule):
    """One linear layer from each token to the pixels of its patch: (B, C, H/p, W/p) -> (B, ``out_channels``, H, W)."""

    def __init__(self, in_channels: int, patch_size: int = 16, out_channels: int = 3) -> None:
        super().__init__()
        self.projection = nn.Conv2d(in_channels, out_channels * patch_size**2, 1)
        self.shuffle = nn.PixelShuffle(patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.shuffle(self.projection(x))


@MODELS.register_module()
class SimMIM(SwinSimMIM):
    """mmpretrain's SimMIM with masks that its :class:`SimMIMViT` draws, so that any data will do."""

    def loss(self, inputs: Tensor, data_samples: list[DataSample] | None = None, **_) -> dict[str, Tensor]:
        """The mean difference of masked pixels."""
        mask = self.backbone.random_mask(len(inputs))
        predicted = self.neck(self.backbone(inputs, mask)[0])
        return dict(loss=self.head.loss(predicted, inputs, mask))
