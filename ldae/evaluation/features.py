# SPDX-License-Identifier: Apache-2.0
"""One pass of a frozen encoder over a data set."""

from collections.abc import Callable

import torch
from mmengine.dist import all_gather, is_main_process
from mmpretrain.models import BaseSelfSupervisor, MAEViT
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from ldae.utils import ConfigError


def pooled_features(model: nn.Module, images: Tensor) -> Tensor:
    """Average of the patch tokens of the last block: images (B, C, H, W) -> (B, embed_dims).

    ``model`` is a pre-training model (l-DAE, MAE, ...), a classifier (its backbone counts), or a backbone of mmpretrain
    or timm. Class and other extra tokens are left out. MAE's encoder sees every patch.
    """
    backbone = getattr(model, 'backbone', model)
    tokens = _forward_unmasked(model, backbone, images)
    if isinstance(tokens, tuple | list):
        tokens = tokens[-1]
    if tokens.dim() == 4:
        return tokens.mean(dim=(2, 3))
    if tokens.dim() == 3:
        return tokens[:, _num_extra_tokens(backbone) :].mean(dim=1)
    return tokens


def _forward_unmasked(model: nn.Module, backbone: nn.Module, images: Tensor) -> Tensor | tuple[Tensor, ...]:
    if isinstance(model, BaseSelfSupervisor):
        return model.extract_feat(images)
    if isinstance(backbone, MAEViT):
        return backbone(images, mask=None)  # mask=False masks as well
    # timm's forward ends in a classifier; mmpretrain's backbones have no such method.
    return getattr(backbone, 'forward_features', backbone)(images)


def _num_extra_tokens(backbone: nn.Module) -> int:
    return getattr(backbone, 'num_extra_tokens', getattr(backbone, 'num_prefix_tokens', 0))


@torch.no_grad()
def extract_features(
    encode: Callable[[Tensor], Tensor],
    dataloader: DataLoader,
    data_preprocessor: Callable[[dict], dict] | None = None,
    desc: str = 'features',
) -> tuple[Tensor, Tensor]:
    """Encode a labelled data set in one pass, holding nothing but the result and one batch.

    In a distributed run each rank encodes the shard its sampler gives it, and all ranks get all rows, in the order of
    the data set (for a sampler that doesn't shuffle).

    Args:
        encode: Images (B, C, H, W), preprocessed, to features (B, C), such as :func:`pooled_features` of a model.
        dataloader: Batches as ``dict(inputs=..., data_samples=[...])``, samples with ``gt_label``.
        data_preprocessor: The model's; without it the batch's inputs go to ``encode`` as they are.
        desc: What the progress bar says. The bar is shown on a terminal only.

    Returns:
        Features (n, C) float32 and labels (n,) int64, on the CPU.

    Raises:
        ConfigError: The data has no labels.
    """
    shard, labels, filled = None, None, 0
    for batch in tqdm(dataloader, desc=desc, leave=False, disable=None if is_main_process() else True):
        batch = batch if data_preprocessor is None else data_preprocessor(batch)
        rows = encode(batch['inputs']).float()
        if shard is None:
            shard = torch.empty(len(dataloader.sampler), rows.shape[1])
            labels = torch.empty(len(shard), dtype=torch.int64)
        shard[filled : filled + len(rows)] = rows.cpu()
        labels[filled : filled + len(rows)] = _labels_of(batch)
        filled += len(rows)
    return _gather(shard[:filled], dataloader), _gather(labels[:filled], dataloader)


def _labels_of(batch: dict) -> Tensor:
    samples = batch.get('data_samples') or [None]
    if any('gt_label' not in (sample or ()) for sample in samples):
        raise ConfigError(
            'features: the data has no labels to score against: set with_label=True in its dataset config'
        )
    return torch.cat([sample.gt_label.view(-1) for sample in samples]).cpu()


def _gather(shard: Tensor, dataloader: DataLoader) -> Tensor:
    """Rows of all ranks, interleaved as the sampler dealt them out, without those it added to fill up."""
    num_shards = getattr(dataloader.sampler, 'world_size', 1)
    if num_shards == 1:
        return shard
    num_images = len(dataloader.dataset)
    longest = -(-num_images // num_shards)
    padded = shard.new_zeros(longest, *shard.shape[1:])
    padded[: len(shard)] = shard
    return torch.stack(all_gather(padded), dim=1).flatten(0, 1)[:num_images]
