# SPDX-License-Identifier: Apache-2.0
"""Fit a tokenizer to a data set."""

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.registry import init_default_scope
from mmpretrain.models.utils import SelfSupDataPreprocessor
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ldae.config.components import check_components, check_data_roots
from ldae.config.packed import use_packed_data
from ldae.models.encoders import BandsPreprocessor
from ldae.models.tokenizers import BaseTokenizer, PatchLinearTokenizer, PixelNormalization
from ldae.registry import DATASETS, MODELS
from ldae.utils import ConfigError
from ldae.utils.device import find_device
from ldae.utils.rng import Draws, preserved_rng


def fit_tokenizer_of(cfg: Config, device: str | torch.device = 'auto', **options: Any) -> BaseTokenizer:
    """The tokenizer of a config's model, fitted to its training set on a device, and brought to the CPU; ``options``
    are those of :func:`fit_tokenizer`. Raises ConfigError for a config whose tokenizer needs no fitting, or whose data
    can't be read."""
    device = find_device(device)
    use_packed_data(cfg)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    check_components(cfg)
    check_data_roots(cfg)
    tokenizer = dict(cfg.model.get('tokenizer') or {}, checkpoint=None)
    if not tokenizer.get('type'):
        raise ConfigError(f'{cfg.filename} has no model.tokenizer: there is nothing to fit')
    tokenizer = MODELS.build(tokenizer)
    if not tokenizer.needs_fit:
        raise ConfigError(f'{type(tokenizer).__name__} needs no fitting')
    # The model's own, so that the tokenizer sees what it will see in training.
    preprocessor = dict(cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {})
    preprocessor.setdefault('type', 'SelfSupDataPreprocessor')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    fit_tokenizer(tokenizer.to(device), dataset, MODELS.build(preprocessor).to(device), **options)
    return tokenizer.cpu()


def fit_tokenizer(
    tokenizer: BaseTokenizer,
    dataset: Dataset,
    data_preprocessor: nn.Module | None = None,
    num_images: int | None = None,
    batch_size: int = 256,
    num_workers: int = 0,
    seed: int = 0,
    progress: bool = True,
) -> None:
    """Fit ``tokenizer`` to ``num_images`` random images of ``dataset``, each rank reading its share of them. Raises
    ConfigError if there are fewer images than processes.

    Args:
        data_preprocessor: The model's, so that the tokenizer sees what it will see in training.
        num_images: Size of the sample; None takes all.
        seed: Of the sample, and of what augmentation draws for each of its images, whatever the workers and processes.
            No other random stream is touched.
        progress: Show a bar on rank 0 if it writes to a terminal.
    """
    # Images of a batch that is drawn for as a whole would depend on who else is in it.
    size = 1 if getattr(dataset, 'is_drawn', False) else batch_size
    rank, world, before_training = dist.get_rank(), dist.get_world_size(), -1
    mine = sample_indices(len(dataset), num_images, seed)[rank::world].tolist()
    # What an image's augmentation draws follows from its place in the whole sample.
    starts = range(0, len(mine), size)
    order = [Draws(mine[i : i + size], seed, before_training, i * world + rank, world) for i in starts]
    own = dict(collate_fn=collate, generator=torch.Generator().manual_seed(seed))
    loader = DataLoader(dataset, batch_sampler=order, num_workers=num_workers, **own)
    with preserved_rng():
        _fit(tokenizer, _inputs(loader, progress and dist.is_main_process()), data_preprocessor)


def _fit(tokenizer: BaseTokenizer, batches: Iterator[Tensor], data_preprocessor: nn.Module | None) -> None:
    first = list(islice(batches, 1))
    batches, normalization = chain(first, batches), None
    if isinstance(tokenizer, PatchLinearTokenizer) and first:
        normalization = pixel_normalization(data_preprocessor, first[0])
    if normalization is not None:
        tokenizer.fit((_raw_pixels(data_preprocessor, images) for images in batches), normalization)
    elif data_preprocessor is not None:
        batches = (dict(inputs=images, data_samples=None) for images in batches)
        tokenizer.fit(data_preprocessor(batch, training=False)['inputs'] for batch in batches)
    else:
        tokenizer.fit(batches)


def sample_indices(size: int, num_images: int | None, seed: int) -> Tensor:
    """Indices of a random sample without replacement, the same on every rank."""
    world = dist.get_world_size()
    count = size if num_images is None else min(size, num_images)
    if count < world:
        message = f'{count} images are fewer than the {world} processes: use fewer processes or more images'
        raise ConfigError(message)
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:count]


def collate(batch: list | dict) -> dict:
    """Collate a list of samples; data sets that serve whole batches have done so already."""
    return batch if isinstance(batch, dict) else default_collate(batch)


def _inputs(loader: DataLoader, progress: bool) -> Iterator[Tensor]:
    """Images (B, C, H, W) as the data set gives them, with a progress bar counting them."""
    options = dict(desc='fit tokenizer', unit='img', disable=None if progress else True)
    with tqdm(total=sum(map(len, loader.batch_sampler)), **options) as bar:
        for batch in loader:
            yield batch['inputs']
            bar.update(len(batch['inputs']))


def pixel_normalization(data_preprocessor: nn.Module | None, images: Tensor) -> PixelNormalization | None:
    """Mean and deviation by which a data preprocessor normalises uint8 images (B, C, H, W), where that and the order of
    channels is all it does: statistics of such images need not be taken in floating point."""
    images_part = getattr(data_preprocessor, 'images', data_preprocessor)  # of LatentsPass
    if type(images_part) not in (SelfSupDataPreprocessor, BandsPreprocessor) or images_part.pad_size_divisor != 1:
        return None
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        return None
    mean, std = getattr(images_part, 'mean', torch.zeros(1)), getattr(images_part, 'std', torch.ones(1))
    # Another number of channels is left to the preprocessor and the tokenizer to complain of.
    return PixelNormalization(mean, std) if mean.numel() in (1, images.shape[1]) else None


def _raw_pixels(data_preprocessor: nn.Module, images: Tensor) -> Tensor:
    """uint8 images on the model's device, channels in the model's order."""
    images = data_preprocessor.cast_data(images)
    return images.flip(1) if data_preprocessor._channel_conversion else images
