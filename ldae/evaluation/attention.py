# SPDX-License-Identifier: Apache-2.0
"""Where an encoder looks."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ldae.utils import ConfigError
from ldae.utils.models import evaluating

from .features import (
    backbone_of,
    block_tokens,
    encoder_parts,
    num_blocks,
    num_extra_tokens,
    num_registers,
    poolings_of,
    resolve_blocks,
)


class Watched(TorchFunctionMode):
    """Keeps queries and keys (B, heads, N, d) of each attention within a part of a network, whoever calls torch's, while the context is
    open, and their scale: a tokenizer may have attention, too."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part, self.is_inside, self.hooks = part, False, []
        self.calls: list[tuple[Tensor, Tensor, float]] = []

    def __enter__(self) -> 'Watched':
        self.hooks = [
            self.part.register_forward_pre_hook(self._enter_part),
            self.part.register_forward_hook(self._leave_part),
        ]
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for hook in self.hooks:
            hook.remove()

    def _enter_part(self, *_: Any) -> None:
        self.is_inside = True

    def _leave_part(self, *_: Any) -> None:
        self.is_inside = False

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.is_inside and func is F.scaled_dot_product_attention:
            query, key = (args[i] if i < len(args) else kwargs[name] for i, name in enumerate(('query', 'key')))
            self.calls.append((query, key, kwargs.get('scale') or query.shape[-1] ** -0.5))
        return func(*args, **kwargs)


@torch.no_grad()
def attention_maps(model: nn.Module, images: Tensor, block: int = -1) -> Tensor:
    """Attention of one block to the patches, by head: images (B, C, H, W) -> (B, heads, N), float64.

    It is the class token's, where the encoder has one, else the average of all patches'. Raises ConfigError for a network
    without attention over all of its patches, or a block that it doesn't have.

    Args:
        model: As :func:`ldae.evaluation.block_features` takes it.
        block: From 1 to the depth, or negative from the end.
    """
    depth, backbone = num_blocks(model), backbone_of(model)
    number, extra = resolve_blocks(depth, [block])[0], num_extra_tokens(backbone) + num_registers(backbone)
    with evaluating(model), Watched(encoder_parts(backbone)[number - 1]) as seen:
        count = block_tokens(model, images).shape[1]
    if not seen.calls or seen.calls[0][1].shape[-2] != count + extra:
        raise ConfigError(f'{type(backbone).__name__} has no attention over all patches that could be shown')
    query, key, scale = seen.calls[0]
    asking = slice(0, 1) if 'cls' in poolings_of(model) else slice(extra, None)
    maps = []
    for q, k in zip(query.double(), key.double(), strict=True):  # an image at a time: N x N numbers a head
        maps.append((q[:, asking] @ k.transpose(-2, -1) * scale).softmax(dim=-1)[..., extra:].mean(dim=1))
    return torch.stack(maps).cpu()
