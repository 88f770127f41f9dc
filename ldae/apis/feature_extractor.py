# SPDX-License-Identifier: Apache-2.0
"""Features of any pictures."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import islice
from typing import Annotated, Any

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from ldae.evaluation import features
from ldae.utils import Choice, ConfigError, NaturalInt, PositiveInt, checked
from ldae.utils.device import autocast
from ldae.utils.models import changed, evaluating
from ldae.utils.ranges import Precision

from .encoders import get_encoder
from .models import to_device
from .preprocess import Preprocess


class FeatureExtractor:
    """Pictures in, features out: ``FeatureExtractor(model)(images)``.

    Images are prepared as the model's own test images are (:class:`ldae.apis.preprocess.Preprocess`) and read a batch
    at a time. The model computes in evaluation mode and is left as it was. Raises ConfigError for an option that is out
    of range or doesn't fit the model.

    Args:
        model: What :func:`ldae.get_encoder` takes, or a model.
        checkpoint: Its weights; may stand alone where it holds its config, or is known without one.
        device: Where to compute: by default, on the GPU if there is one, and a model that is given where it lies.
        precision: ``'auto'``, ``'fp32'``, ``'bf16'`` or ``'fp16'`` of the encoder's products; features are float32.
        batch_size: Images encoded at a time, at least 1.
        pool: ``'avg'`` averages patch tokens (C), ``'cls'`` takes the class token and ``'own'`` the encoder's own pooled
            output, ``'tokens'`` keeps patch tokens (N, C), ``'featmap'`` lays them out (C, h, w).
        blocks: A block number (1 to the depth, or negative from the end) instead of the last, or several: a list adds
            an axis (L, C). For ``pool='avg'`` and ``'cls'``.
        timestep: t that the encoder is told, 0 to T - 1; None takes the model's own. For conditioned encoders.
        num_workers: Threads that read and prepare images, 0 for none.
        **kwargs: Further ones of :func:`ldae.get_encoder` (``scale``, ``cfg_options``, ``pretrained``, ...).
    """

    @checked
    def __init__(
        self,
        model: str | os.PathLike | Config | nn.Module | None = None,
        checkpoint: str | os.PathLike | None = None,
        device: str | torch.device | None = None,
        batch_size: PositiveInt = 64,
        pool: Annotated[str, Choice('avg', 'cls', 'own', 'tokens', 'featmap')] = 'avg',
        blocks: int | Sequence[int] | None = None,
        timestep: int | None = None,
        num_workers: NaturalInt = 0,
        precision: Precision | None = None,
        **kwargs: Any,
    ) -> None:
        if blocks is not None and pool not in ('avg', 'cls'):
            raise ConfigError(f"FeatureExtractor: blocks={blocks!r} goes with pool='avg' or 'cls', not {pool!r}")
        self.model = resolve_model(model, checkpoint, device, **kwargs)
        self.batch_size, self.pool, self.num_workers, self.precision = batch_size, pool, num_workers, precision
        self.blocks, self.timestep = blocks, timestep
        self.preprocess = Preprocess(self.model)
        if blocks is not None:
            features.resolve_blocks(features.num_blocks(self.model), self._block_list())
        if pool in ('cls', 'own'):
            features.check_pooling(self.model, pool, [features.num_blocks(self.model)])
        if timestep is not None:
            features.resolve_inputs(self.model, [timestep], [False])

    def __call__(self, images: Any) -> Tensor:
        """Features of all ``images``, in their order.

        Args:
            images: What :func:`ldae.apis.images.read_images` takes: paths, folders, PIL images, arrays, tensors.

        Returns:
            float32 on the CPU: (n, C), or (n, L, C) for several blocks, (n, N, C) for tokens, (n, C, h, w) for maps.
        """
        return torch.cat(list(self.stream(images)))

    def stream(self, images: Any) -> Iterator[Tensor]:
        """As a call, but a batch at a time, as they are computed: nothing is held but one batch."""
        return self.of_pictures(self.preprocess.read(images))

    def of_pictures(self, pictures: Iterable[np.ndarray]) -> Iterator[Tensor]:
        """Features, batch by batch, of pictures that are read already, as :meth:`Preprocess.read` gives them."""
        pool = ThreadPoolExecutor(self.num_workers) if self.num_workers else nullcontext()
        with pool as executor:
            transform = self.preprocess.transform
            pictures = iter(pictures)
            while raw := list(islice(pictures, self.batch_size)):
                yield self._encode(list(executor.map(transform, raw) if executor else map(transform, raw)))

    @torch.no_grad()
    def _encode(self, images: Sequence[Tensor]) -> Tensor:
        at_timestep = nullcontext()
        if self.timestep is not None:
            at_timestep = changed(features.backbone_of(self.model), timestep=self.timestep)
        inputs = self.preprocess.batch(images)
        with evaluating(self.model), at_timestep, autocast(self.precision, inputs.device):
            return self._features(inputs).float().cpu()

    def _features(self, inputs: Tensor) -> Tensor:
        if self.blocks is not None or self.pool in ('cls', 'own'):
            pooling = 'mean' if self.pool == 'avg' else self.pool
            rows = features.block_features(self.model, inputs, self._block_list(), pooling)
            return rows if isinstance(self.blocks, Sequence) else rows[:, 0]
        if self.pool == 'avg':
            return features.pooled_features(self.model, inputs)
        return lay_out(features.block_tokens(self.model, inputs), inputs, self.pool)

    def _block_list(self) -> list[int] | None:
        return [self.blocks] if isinstance(self.blocks, int) else self.blocks and list(self.blocks)


def resolve_model(
    model: str | os.PathLike | Config | nn.Module | None,
    checkpoint: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
    **kwargs: Any,
) -> nn.Module:
    """A model that is given, moved only if a device is named, or what :func:`ldae.get_encoder` builds."""
    if not isinstance(model, nn.Module):
        return get_encoder(model, checkpoint, device, **kwargs)
    if checkpoint is not None or kwargs:
        given = ', '.join((*(['checkpoint'] if checkpoint is not None else []), *kwargs))
        raise ConfigError(f'{given}: for a model that is named, but {type(model).__name__} is one already')
    return model if device is None else to_device(model, device)


def lay_out(tokens: Tensor, inputs: Tensor, pool: str) -> Tensor:
    """Tokens (B, N, C) of images (B, ., H, W) as they are, or for ``'featmap'`` as a map (B, C, h, w)."""
    if pool == 'tokens':
        return tokens
    return tokens.transpose(1, 2).unflatten(2, patch_grid(tokens.shape[1], inputs.shape[2:]))


def patch_grid(count: int, size: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of the patches of an image of a height and width. Raises ConfigError if no such number fits it."""
    rows = round((count * size[0] / size[1]) ** 0.5)
    if not rows or count % rows:
        raise ConfigError(f'{count} patches of images of {size[0]} x {size[1]} pixels make no map')
    return rows, count // rows
