# SPDX-License-Identifier: Apache-2.0
"""Encode a data set once, into a file that a model is then trained from."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_rank, get_world_size, is_main_process
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ldae.datasets import batch_collate
from ldae.datasets.latents import LatentDataset, LatentFile, batches_of, checksum, chunks_of, first_of_chunk
from ldae.utils import ConfigError
from ldae.utils.collective import failing_together, from_main_process, gathered
from ldae.utils.rng import preserved_rng, seed_cpu

from .fit import collate

#: Images that are read twice, and encoded again when a file is used that was there before.
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
    """Encode all images of ``dataset`` by the tokenizer of ``model``, each process its share, into one file.

    The file is there when it is whole, or not at all. All processes must see the same folder.

    Args:
        made_of: What the latents are made of, for the header.
        dtype: A key of ``DTYPES``.
        batch_size: Images encoded at a time.
        num_workers, worker_init_fn: Of the DataLoader that reads images.

    Raises:
        ConfigError: There is no room, the file can't be written, or latents don't fit into ``dtype``.
    """
    geometry = model.tokenizer.geometry
    shape = (len(dataset), geometry.num_tokens, geometry.latent_dim)
    file = LatentFile(path, shape, dtype, bool(model.num_classes))
    try:
        with _explained(path):
            if is_main_process():
                file.create()
        file.unfinished = from_main_process(file.unfinished)
        batches = list(batches_of(chunks_of(len(dataset))[get_rank() :: get_world_size()], batch_size))
        loader = DataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=num_workers,
            worker_init_fn=worker_init_fn,
            collate_fn=collate,
            generator=torch.Generator().manual_seed(0),
        )
        with _explained(path):
            written = _write_share(file, model, loader, batches)
        written = gathered(written)
        with _explained(path):
            if is_main_process():
                _finish(file, made_of, {start: part for share in written for start, part in share.items()})
    except BaseException:
        file.discard()
        raise


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """What fails in one process fails in all, and is one line."""
    with failing_together():
        try:
            yield
        except OSError as error:
            raise ConfigError(
                f'{path}: latents cannot be written ({error.strerror or error}): name another file'
            ) from error


@torch.no_grad()
def _write_share(
    file: LatentFile, model: nn.Module, loader: DataLoader, batches: Sequence[list[int]]
) -> dict[int, tuple[int, Tensor | None]]:
    """Encode and write this process's images: by a chunk's first image, its rows' checksum and its labels."""
    written: dict[int, tuple[int, Tensor | None]] = {}
    with tqdm(total=sum(map(len, batches)), desc='encode', unit='img', disable=_quiet()) as bar:
        for numbers, batch in zip(batches, loader, strict=True):
            rows = file.write(numbers[0], latents_of(model, batch))
            start = first_of_chunk(numbers[0])
            before, labels = written.get(start, (0, None))
            if model.num_classes:
                labels = torch.cat([*([] if labels is None else [labels]), labels_of(batch)])
            written[start] = checksum(rows, before=before), labels
            bar.update(len(rows))
    return written


def _quiet() -> bool | None:
    """No bar but on rank 0, and there on a terminal only."""
    return None if is_main_process() else True


def _finish(file: LatentFile, made_of: dict[str, str], written: dict[int, tuple[int, Tensor | None]]) -> None:
    parts = [written[start] for start in sorted(written)]
    labels = None if parts[0][1] is None else torch.cat([part for _, part in parts])
    file.finish(made_of, [number for number, _ in parts], labels)


def latents_of(model: nn.Module, batch: dict) -> Tensor:
    """A batch as a data set gives it -> latents (B, N, d)."""
    batch = model.data_preprocessor(dict(inputs=batch['inputs'], data_samples=None), training=False)
    return model.tokenizer.encode(batch['inputs'])


def labels_of(batch: dict) -> Tensor:
    """Class labels (B,) of a batch.

    Raises:
        ConfigError: It has none.
    """
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
    """Raise ConfigError unless a file was made of this tokenizer and these data, in this number format."""
    what = dict(tokenizer='another tokenizer or normalisation', data='another data set or pipeline')
    for key, words in what.items():
        if key in made_of and latents.made_of.get(key) != made_of[key]:
            raise ConfigError(
                f'{latents.file} holds latents of {words}: delete it, and it is made anew, or name another file'
            )
    if latents.dtype != dtype:
        raise ConfigError(
            f'{latents.file} holds {latents.dtype}, the config asks for {dtype}: delete it, and it is made anew, or set dtype'
        )


def check_content(latents: LatentDataset, model: nn.Module, numbers: Sequence[int], batch: dict) -> None:
    """Raise ConfigError if checksums differ, or the latents of a batch of images, given by number, are others by now."""
    with failing_together():
        latents.verify(range(len(chunks_of(len(latents))))[get_rank() :: get_world_size()])
        found = latents.latents[list(numbers)].float()
        step = torch.finfo(latents.latents.dtype).eps
        # An encoder's own rounding differs between machines, and sizes of batches.
        if not torch.allclose(found, latents_of(model, batch).cpu().float(), rtol=2 * step, atol=2e-3):
            raise ConfigError(
                f'{latents.file} holds latents of other images than the data set has by now: delete it, and it is made anew'
            )


def tokenizer_key(tokenizer: nn.Module, data_preprocessor: nn.Module) -> str:
    """Hash of a tokenizer's and a data preprocessor's kinds and tensors."""
    digest = hashlib.sha256(repr(getattr(tokenizer, 'geometry', None)).encode())
    preprocessor = getattr(data_preprocessor, 'images', data_preprocessor)
    options = [getattr(preprocessor, name, None) for name in ('_channel_conversion', '_enable_normalize')]
    digest.update(repr(options).encode())
    for module in (tokenizer, preprocessor):
        digest.update(type(module).__name__.encode())
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            value = value.detach().cpu().contiguous()
            digest.update(repr((name, value.dtype, tuple(value.shape))).encode())
            digest.update(value.flatten().view(torch.uint8).numpy().data)
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
