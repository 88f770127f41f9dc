# SPDX-License-Identifier: Apache-2.0
"""Models of any library: as they are in training, for a while otherwise, and their parts."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from .errors import ConfigError


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside a wrapper of distributed training, or the module itself."""
    return module.module if is_model_wrapper(module) else module


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode while the context is open; each module is put back into its own."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def changed(module: nn.Module, **attributes: Any) -> Iterator[None]:
    """A module with other attributes while the context is open."""
    before = {name: getattr(module, name) for name in attributes}
    try:
        for name, value in attributes.items():
            setattr(module, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


def hash_tensors(digest: Any, module: nn.Module) -> Any:
    """A digest of hashlib's that has gone on with a module's parameters and buffers."""
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        value = value.detach().cpu().contiguous()
        digest.update(repr((name, value.dtype, tuple(value.shape))).encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest


def transformer_blocks(model: nn.Module, user: str, remedy: str = 'remove the hook, or --fast') -> list[nn.Module]:
    """The Transformer blocks of a model, in order; raise ConfigError, naming the user that needs them, if it has none."""
    from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer

    model = unwrapped(model)
    blocks = [part for part in model.modules() if isinstance(part, TransformerEncoderLayer)]
    if not blocks:
        raise ConfigError(f'{user}: {type(model).__name__} has no Transformer blocks: {remedy}')
    return blocks


def to_pixels(images: Tensor, data_preprocessor: nn.Module) -> Tensor:
    """Undo a data preprocessor's normalisation: images (B, C, H, W) -> pixels in [0, 255], same shape."""
    if getattr(data_preprocessor, '_enable_normalize', False):
        images = images * data_preprocessor.std + data_preprocessor.mean
    return images.clamp(0, 255)


def psnr(pixels: Tensor, clean: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (B,) in dB of images (B, C, H, W) in [0, 255]; at most 128."""
    mse = (pixels - clean).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(255**2 / mse.clamp(min=1e-8))
