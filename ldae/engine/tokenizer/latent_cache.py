# SPDX-License-Identifier: Apache-2.0
"""Encode a data set once, into latents on disk that a model is then trained from."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_rank, get_world_size, is_main_process
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ldae.datasets import batch_collate
from ldae.datasets.latents import LatentDataset, new_latents, shards_of, write_shard
from ldae.models.tokenizers.fit import collate
from ldae.utils import ConfigError
from ldae.utils.collective import failing_together
from ldae.utils.models import hash_tensors
from ldae.utils.rng import preserved_rng, seed_cpu

#: Images that are read twice, and encoded again when latents are used that were there before.
NUM_SAMPLES = 32


def write_latents(
    path: Path,
    model: nn.Module,
    dataset: Dataset,
    made_of: dict[str, str],
    dtype: str = 'float16',
    batch_size: int = 256,
    num_workers: int = 0,
    worker_init_fn: Callable[[int], None] | None = None,
) -> None:
    """Encode all images of ``dataset`` by the tokenizer of ``model``, each process its shards, into one folder.

    The folder is there when it is whole, or not at all. All processes must see it.

    Args:
        made_of: What the latents are made of, for the manifest.
        dtype: A key of ``DTYPES``.
        batch_size: Images encoded at a time.
        num_workers, worker_init_fn: Of the DataLoader that reads images.

    Raises:
        ConfigError: There is no room, the folder can't be written, or latents don't fit into ``dtype``.
    """
    geometry = model.tokenizer.geometry
    shape, with_label = (len(dataset), geometry.num_tokens, geometry.latent_dim), bool(model.num_classes)
    with new_latents(path, shape, dtype, with_label, made_of) as (folder, _):
        shards = shards_of(len(dataset))
        mine = range(get_rank(), len(shards), get_world_size())
        batches = {number: batches_of(shards[number], batch_size) for number in mine}
        loader = DataLoader(
            dataset,
            batch_sampler=list(chain(*batches.values())),
            num_workers=num_workers,
            worker_init_fn=worker_init_fn,
            collate_fn=collate,
            generator=torch.Generator().manual_seed(0),
        )
        # A bar on rank 0 alone, and there on a terminal only.
        quiet = None if is_main_process() else True
        with tqdm(total=sum(len(shards[n]) for n in mine), desc='encode', unit='img', disable=quiet) as bar:
            encoded = _encoded(model, loader, bar)
            for number in mine:
                write_shard(folder, number, shape, dtype, islice(encoded, len(batches[number])))


def batches_of(images: range, batch_size: int) -> list[list[int]]:
    """Numbers of images, batch by batch."""
    return [list(images[start : start + batch_size]) for start in range(0, len(images), batch_size)]


@torch.no_grad()
def _encoded(model: nn.Module, loader: DataLoader, bar: tqdm) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Latents and, where the model conditions on them, labels of each batch."""
    for batch in loader:
        latents = latents_of(model, batch)
        bar.update(len(latents))
        yield latents, labels_of(batch) if model.num_classes else None


def latents_of(model: nn.Module, batch: dict) -> Tensor:
    """A batch as a data set gives it -> latents (B, N, d)."""
    batch = model.data_preprocessor(dict(inputs=batch['inputs'], data_samples=None), training=False)
    return model.tokenizer.encode(batch['inputs'])


def labels_of(batch: dict) -> Tensor:
    """Class labels (B,) of a batch; raise ConfigError if it has none."""
    samples = batch['data_samples'] or ()
    if not samples or any('gt_label' not in sample for sample in samples):
        raise ConfigError(
            'latents: the model conditions on labels, but the samples carry none: set with_label=True in the training data set'
        )
    return torch.cat([sample.gt_label for sample in samples]).long()


def read_samples(dataset: Dataset) -> tuple[list[int], dict]:
    """Numbers of some images, spread over the data set, and the batch of them.

    Raises:
        ConfigError: Read twice, an image isn't the same: there is augmentation, which a cache would freeze.
    """
    count = min(NUM_SAMPLES, len(dataset))
    numbers = [i * len(dataset) // count for i in range(count)]
    readings = []
    with preserved_rng():
        for seed in (0, 1):
            seed_cpu(seed)
            items = getattr(dataset, '__getitems__', lambda found: [dataset[i] for i in found])(numbers)
            readings.append(collate(items))
    first, second = readings
    if not torch.equal(first['inputs'], second['inputs']):
        raise ConfigError(
            'latents: the training images are augmented (read twice, they differ), and their latents would be the same in '
            'each epoch: train from images, or take the random crops and flips out of the pipeline'
        )
    return numbers, first


def check_latents(latents: LatentDataset, made_of: dict[str, str], dtype: str) -> None:
    """Raise ConfigError unless latents were made of this tokenizer and these data, in this number format."""
    what = dict(tokenizer='another tokenizer or normalisation', data='another data set or pipeline')
    for key, words in what.items():
        if key in made_of and latents.made_of.get(key) != made_of[key]:
            raise ConfigError(
                f'{latents.file} holds latents of {words}: delete it, and they are made anew, or name another folder'
            )
    if latents.dtype != dtype:
        raise ConfigError(
            f'{latents.file} holds {latents.dtype}, the config asks for {dtype}: delete it, and they are made anew, or set dtype'
        )


def check_content(latents: LatentDataset, model: nn.Module, numbers: Sequence[int], batch: dict) -> None:
    """Raise ConfigError if checksums differ, or the latents of a batch of images, given by number, are others by now."""
    with failing_together():
        latents.verify(range(get_rank(), len(latents.shards), get_world_size()))
        found, expected = latents.rows(numbers), latents_of(model, batch).cpu().float()
        step = torch.finfo(found.dtype).eps
        # An encoder's own rounding differs between machines, and sizes of batches.
        if not torch.allclose(found.float(), expected, rtol=2 * step, atol=2e-3):
            raise ConfigError(
                f'{latents.file} holds latents of other images than the data set has by now: delete it, and they are made anew'
            )


def tokenizer_key(tokenizer: nn.Module, data_preprocessor: nn.Module) -> str:
    """Hash of a tokenizer's and a data preprocessor's kinds and tensors."""
    digest = hashlib.sha256(repr(getattr(tokenizer, 'geometry', None)).encode())
    preprocessor = getattr(data_preprocessor, 'images', data_preprocessor)
    options = [getattr(preprocessor, name, None) for name in ('_channel_conversion', '_enable_normalize')]
    digest.update(repr(options).encode())
    for module in (tokenizer, preprocessor):
        digest.update(type(module).__name__.encode())
        hash_tensors(digest, module)
    return digest.hexdigest()[:24]


def data_key(dataset: Dataset, description: Any) -> str:
    """Hash of a data set's kind, size, and config or what else describes it."""
    words = json.dumps([type(dataset).__name__, len(dataset), description], sort_keys=True, default=str)
    return hashlib.sha256(words.encode()).hexdigest()[:24]


def put_into(loader: DataLoader, latents: LatentDataset) -> None:
    """Let a DataLoader give latents in the place of its data set's images, in the same order."""
    latents.dataset = loader.dataset  # for whoever reports on the images
    # A DataLoader refuses to be given another data set, and building it anew would lose its order. Workers would only copy
    # what lies in memory.
    vars(loader).update(
        dataset=latents,
        collate_fn=batch_collate,
        num_workers=0,
        persistent_workers=False,
        prefetch_factor=None,
        worker_init_fn=None,
        timeout=0,
    )
