# SPDX-License-Identifier: Apache-2.0
"""The encoder's first layer: noisy latents, or images, to tokens."""

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from ldae.utils import ConfigError
from ldae.utils.device import full_precision

from .patches import AffinePatchMap, patchify


def fold_map(weight: Tensor, bias: Tensor, patch_map: AffinePatchMap, input_type: str) -> tuple[Tensor, Tensor]:
    """The embedding as a function of the latents: ``(C, d)`` weight and ``(C,)`` bias.

    For image input (method: "image input by inverse PCA"), ``W (D^T z + m) + b = (W D^T) z + (W m + b)``."""
    if input_type == 'latent':
        return weight, bias
    weight = weight.flatten(1)
    return weight @ patch_map.decoder.t(), bias + weight @ patch_map.mean


class PatchEmbed(BaseModule):
    """Embed images (B, C, H, W) or latent tokens (B, N, d) as (B, N, embed_dims).

    ``input_type='image'`` learns a ``p x p`` convolution of the (inverse-tokenized) image, ``'latent'`` a linear map of
    the latent token. With a ``patch_map``, both kinds of input are accepted and nothing is computed in pixel space that
    needn't be: latents meet the folded weight, and raw images are seen through the tokenizer's subspace, which is all
    that the pre-trained weight has ever met. Without one, an ``'image'`` embedding is that of a plain ViT.

    A checkpoint that holds a patch map, loaded into an embedding that has none, is folded into ``projection``."""

    def __init__(
        self,
        img_size: tuple[int, int],
        patch_size: int,
        in_channels: int,
        embed_dims: int,
        input_type: str = 'image',
        latent_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.input_type = input_type
        self.init_out_size = (img_size[0] // patch_size, img_size[1] // patch_size)
        if input_type == 'image':
            self.projection = nn.Conv2d(in_channels, embed_dims, patch_size, stride=patch_size)
        else:
            self.projection = nn.Linear(latent_dim, embed_dims)
        self.patch_map: AffinePatchMap | None = None
        self._register_load_state_dict_pre_hook(self._fold_checkpoint)

    @property
    def takes_latents(self) -> bool:
        """Whether latent tokens can be embedded without going through pixels."""
        return self.input_type == 'latent' or self.patch_map is not None

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return tokens (B, N, embed_dims) and their grid (rows, columns)."""
        if x.dim() == 3:
            with full_precision(x.device):  # a product of weights, tiny beside the batch
                weight, bias = fold_map(self.projection.weight, self.projection.bias, self.patch_map, self.input_type)
            return F.linear(x, weight, bias), self.init_out_size
        height, width = x.shape[2:]
        if height % self.patch_size or width % self.patch_size:
            raise ConfigError(
                f'an input image of {height} x {width} pixels does not divide into patches of {self.patch_size}: '
                f'resize, crop or pad it to a multiple of {self.patch_size} in the data pipeline'
            )
        grid = (height // self.patch_size, width // self.patch_size)
        if self.patch_map is None:
            return self.projection(x).flatten(2).transpose(1, 2), grid
        with full_precision(x.device):
            weight, bias = fold_map(self.projection.weight, self.projection.bias, self.patch_map, self.input_type)
            weight = weight @ self.patch_map.encoder
            bias = bias - weight @ self.patch_map.mean
        return F.linear(patchify(x, self.patch_size), weight, bias), grid

    def _fold_checkpoint(self, state_dict: dict, prefix: str, *args) -> None:
        key = prefix + 'patch_map.encoder'
        if self.patch_map is not None or key not in state_dict:
            return
        latent_dim, patch_dim = state_dict[key].shape
        patch_map = AffinePatchMap(latent_dim, patch_dim)
        for name, buffer in patch_map.named_buffers():
            buffer.copy_(state_dict.pop(f'{prefix}patch_map.{name}'))
        weight, bias = state_dict[prefix + 'projection.weight'], state_dict[prefix + 'projection.bias']
        input_type = 'latent' if weight.dim() == 2 else 'image'
        weight, bias = fold_map(weight.cpu().double(), bias.cpu().double(), patch_map.double(), input_type)
        weight = weight @ patch_map.encoder
        bias = bias - weight @ patch_map.mean
        shape = (-1, patch_dim // self.patch_size**2, self.patch_size, self.patch_size)
        state_dict[prefix + 'projection.weight'] = weight.float().reshape(shape)
        state_dict[prefix + 'projection.bias'] = bias.float()
