# SPDX-License-Identifier: Apache-2.0
from mmengine.model import is_model_wrapper
from torch import Tensor, nn


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside a wrapper of distributed training, or the module itself."""
    return module.module if is_model_wrapper(module) else module


def to_pixels(images: Tensor, data_preprocessor: nn.Module) -> Tensor:
    """Undo a data preprocessor's normalisation: images (B, C, H, W) -> pixels in [0, 255], same shape."""
    if getattr(data_preprocessor, '_enable_normalize', False):
        images = images * data_preprocessor.std + data_preprocessor.mean
    return images.clamp(0, 255)
