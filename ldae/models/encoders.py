# SPDX-License-Identifier: Apache-2.0
"""Encoders that other libraries trained, with the images that they take."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from mmengine.model import BaseDataPreprocessor
from mmpretrain.models.utils import SelfSupDataPreprocessor
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ldae.registry import MODELS
from ldae.utils import ConfigError, PositiveInt, Range, checked
from ldae.utils.ranges import check_value

#: Shares of red, green and blue in grey, as Pillow has them.
LUMA = 0.299, 0.587, 0.114
#: Height or width of an encoder's images.
Edge = Annotated[int, Range(1, 4096)]


@MODELS.register_module()
class BandsPreprocessor(SelfSupDataPreprocessor):
    """mmpretrain's data preprocessor of pre-training, whose ``mean`` and ``std`` are one or three numbers, for any number of bands."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], **kwargs: Any) -> None:
        super().__init__(mean[:1], std[:1], **kwargs)
        for name, values in (('mean', mean), ('std', std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1), False)


@MODELS.register_module()
class EncoderPreprocessor(BaseDataPreprocessor):
    """From a batch of any data to what an encoder takes: its size, its channels, its mean and deviation.

    ``dict(inputs=(B, C, H, W))``, or a list of (C, H, W), with pixels of 0 to 255, grey or RGB -> the same with normalised
    float32 (B, channels, size). Where the data give BGR, :func:`ldae.evaluation.probe_data.preprocessor_of` turns it.

    Args:
        mean, std: One a channel, of pixels of 0 to 255.
        size: Height and width; images of another size are resized, whole.
        interpolation: By which filter; it is antialiased.
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], size: Sequence[int], interpolation: str = 'bicubic'
    ) -> None:
        super().__init__()
        self.register_buffer('mean', torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(-1, 1, 1), persistent=False)
        self.size = tuple(size)
        self.interpolation = interpolation if interpolation in ('bilinear', 'bicubic') else 'bicubic'
        self._enable_normalize = True  # for whoever undoes it

    def forward(self, data: dict, training: bool = False) -> dict:
        """A batch as the encoder takes it; nothing differs in training."""
        data = self.cast_data(data)
        inputs = fitted(data['inputs'], len(self.mean), self.size, self.interpolation)
        return dict(data, inputs=(inputs - self.mean) / self.std)


def fitted(
    images: Tensor | Sequence[Tensor], channels: int, size: tuple[int, int], interpolation: str = 'bicubic'
) -> Tensor:
    """Images (B, C, H, W), or a list of (C, H, W), of any size, grey or RGB -> float32 (B, channels, *size) of 0 to 255."""
    if not isinstance(images, Tensor):
        return torch.cat([fitted(image.unsqueeze(0), channels, size, interpolation) for image in images])
    images, given = images.float(), images.shape[1]
    if given == 1:
        images = images.expand(-1, channels, -1, -1)
    elif given == 3 and channels == 1:
        images = (images * images.new_tensor(LUMA).view(3, 1, 1)).sum(dim=1, keepdim=True)
    elif given != channels:
        raise ConfigError(f'images have {given} channels, the encoder takes {channels}: name other images with --data')
    if tuple(images.shape[2:]) != size:
        images = interpolate(images, size, mode=interpolation, antialias=True).clamp(0, 255)
    return images


class Encoder(nn.Module):
    """An encoder of another library, as tools take a model: ``backbone``, and ``data_preprocessor`` for its images.

    Args:
        backbone: A model of timm's, or a :class:`TransformersBackbone`.
        about: What it is, in a few words.
        pictures: How a picture is prepared, in timm's words: ``input_size``, ``mean``, ``std`` (of 0 to 1),
            ``interpolation``, ``crop_pct`` and ``crop_mode``.
        weights: Where its weights are from; None: it is untrained.
    """

    def __init__(
        self, backbone: nn.Module, about: str, pictures: Mapping[str, Any], weights: str | None = None
    ) -> None:
        super().__init__()
        self.backbone, self.about, self.pretrained_cfg, self._config = backbone, about, dict(pictures), None
        self.weights, self.input_size = weights, tuple(pictures['input_size'][1:])
        for edge in self.input_size:
            check_value(f'{about}: height or width of images', edge, Edge)
        channels = pictures['input_size'][0]
        mean, std = ([255 * value for value in pictures[name]] for name in ('mean', 'std'))
        if len(mean) != channels or len(std) != channels or not all(std):
            raise ConfigError(f'{about}: mean and deviation must be one of each of {channels} channels, and none 0')
        self.data_preprocessor = EncoderPreprocessor(mean, std, self.input_size, pictures['interpolation'])

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Prepared images (B, C, H, W) -> what the backbone gives."""
        return self.backbone(images)


class TransformersBackbone(nn.Module):
    """An image model of transformers in timm's form: its blocks, its tokens and its own pooled output.

    Args:
        network: Gives ``last_hidden_state``, and ``pooler_output`` or not.
        size: Height and width of images that it is tried by.
        has_pooler: Whether its pooled output has trained weights.
    """

    @checked
    def __init__(self, network: nn.Module, size: tuple[PositiveInt, PositiveInt], has_pooler: bool = True) -> None:
        super().__init__()
        self.network, self.has_pooler, config = network, has_pooler, network.config
        names = [name.rpartition('.')[2] for name, _ in network.named_parameters()]
        self.has_class_token = bool({'cls_token', 'class_embedding', 'class_token'} & set(names))
        depth = getattr(config, 'num_hidden_layers', None)
        lists = [part for part in network.modules() if isinstance(part, nn.ModuleList) and len(part) == depth]
        self._find_blocks = lists[:1]  # a list, so that modules have one name
        patch = getattr(config, 'patch_size', None)
        with torch.no_grad():
            output = self(torch.zeros(1, getattr(config, 'num_channels', 3), *size))
        tokens = output if isinstance(output, Tensor) else output[-1]
        # Of some it is the class token, as it is.
        is_class = self.has_class_token and torch.equal(output[0], tokens[:, 0])
        self.has_pooler = output is not tokens and not is_class
        self.num_prefix_tokens = 0
        if tokens.dim() == 3 and isinstance(patch, int):
            self.num_prefix_tokens = max(0, tokens.shape[1] - (size[0] // patch) * (size[1] // patch))

    @property
    def blocks(self) -> nn.ModuleList | None:
        """Its blocks, where they are one list."""
        return next(iter(self._find_blocks), None)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Images (B, C, H, W) -> tokens (B, L, C) or maps, after the pooled output (B, C) where there is one."""
        options = {}
        if hasattr(self.network.config, 'mask_ratio'):  # of MAE, which shuffles its patches by this
            options['noise'] = torch.arange(self._num_patches(), device=images.device).float().expand(len(images), -1)
        output = self.network(pixel_values=images, **options)
        pooled = getattr(output, 'pooler_output', None) if self.has_pooler else None
        tokens = output.last_hidden_state
        return tokens if pooled is None else (pooled.flatten(1), tokens)  # a convolutional one's is (B, C, 1, 1)

    def forward_head(self, output: Tensor | tuple[Tensor, Tensor], pre_logits: bool = True) -> Tensor:
        """The encoder's own pooled output, of what :meth:`forward` gives."""
        return output[0]

    def _num_patches(self) -> int:
        return self.network.embeddings.patch_embeddings.num_patches
