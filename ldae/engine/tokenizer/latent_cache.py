# SPDX-License-Identifier: Apache-2.0
"""Encode a data set once, into latents on disk that a model is then trained from."""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Annotated

import torch
from mmengine.dist import get_rank, get_world_size, is_main_process
from mmengine.runner import BaseLoop, Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ldae.datasets import batch_collate
from ldae.datasets.latents import DTYPES, LatentDataset, new_latents, shards_of, write_shard
from ldae.datasets.listing import listing_key
from ldae.engine.hook import LDAEHook
from ldae.models.tokenizers.fit import collate
from ldae.registry import HOOKS
from ldae.utils import Choice, ConfigError, PositiveInt, checked
from ldae.utils.collective import failing_together, from_main_process
from ldae.utils.models import hash_tensors, unwrapped
from ldae.utils.rng import preserved_rng, seed_cpu

#: Images that are read twice, and encoded again when latents are used that were there before.
NUM_SAMPLES = 32
FOLDER_NAME = 'latents'
#: Earlier versions of ldae wrote one file, which isn't read.
EARLIER_NAME = 'latents.safetensors'


@HOOKS.register_module()
class LatentCacheHook(LDAEHook):
    """Encode the training images once, before the first step, and train from their latents, which lie in memory.

    For heads that need no images, and data without augmentation. The latents are used again by later runs whose
    tokenizer and data are the same, refused by others. Raises ConfigError if the head needs images; if images are
    augmented; if the latents are damaged, or of another tokenizer, other data or another dtype; and if there is no room
    for them.

    Args:
        file: The folder that is written, or used if it is there; None: ``latents`` in the work directory.
        dtype: ``'float32'``, ``'float16'`` or ``'bfloat16'``, of what is written.
        batch_size: Images encoded at a time.
    """

    # After the tokenizer is fitted, before hooks that look at the data.
    priority = 'HIGH'

    @checked
    def __init__(
        self, file: str | None = None, dtype: Annotated[str, Choice(DTYPES)] = 'float16', batch_size: PositiveInt = 256
    ) -> None:
        self.file, self.dtype, self.batch_size = file, dtype, batch_size

    def before_run(self, runner: Runner) -> None:
        """Refuse what can't work before a tokenizer is fitted to it."""
        if not isinstance(runner._train_loop, BaseLoop):
            return  # a test
        check_model(unwrapped(runner.model))
        if not isinstance(runner.train_dataloader.dataset, LatentDataset):
            read_samples(runner.train_dataloader.dataset)

    def before_train(self, runner: Runner) -> None:
        """Write the latents, or look whether they are the right ones, and train from them."""
        model, loader = unwrapped(runner.model), runner.train_dataloader
        check_model(model)
        made_of = dict(tokenizer=tokenizer_key(model.tokenizer, model.data_preprocessor))
        if isinstance(loader.dataset, LatentDataset):  # the config names the folder itself
            check_latents(loader.dataset, made_of, loader.dataset.dtype)
            return
        description = (runner.cfg.get('train_dataloader') or {}).get('dataset')
        words = json.dumps(
            [type(loader.dataset).__name__, len(loader.dataset), description, *getattr(loader.dataset, 'identity', ())],
            sort_keys=True,
            default=str,
        )
        made_of['data'] = hashlib.sha256(words.encode()).hexdigest()[:24]
        made_of['listing'] = listing_key(loader.dataset)
        path = Path(self.file or Path(runner.work_dir) / FOLDER_NAME).expanduser()
        latents = self._latents(path, model, made_of, runner)
        latents.dataset = loader.dataset  # for whoever reports on the images
        # A DataLoader refuses to be given another data set, and building it anew would lose its order. Workers would only
        # copy what lies in memory.
        none = dict(num_workers=0, persistent_workers=False, prefetch_factor=None, worker_init_fn=None, timeout=0)
        vars(loader).update(dataset=latents, collate_fn=batch_collate, **none)

    def _latents(self, path: Path, model: nn.Module, made_of: dict[str, str], runner: Runner) -> LatentDataset:
        loader, start = runner.train_dataloader, time.perf_counter()
        is_there = from_main_process(path.exists())
        numbers, batch = read_samples(loader.dataset)
        if not is_there:
            if not self.file and (earlier := path.with_name(EARLIER_NAME)).exists():
                runner.logger.info(f'{earlier} is of an earlier version of ldae and not read: it may be deleted')
            runner.logger.info(f'Encoding {len(loader.dataset)} training images into {path}')
            reading = dict(num_workers=loader.num_workers, worker_init_fn=loader.worker_init_fn)
            write_latents(path, model, loader.dataset, made_of, self.dtype, self.batch_size, **reading)
        latents = LatentDataset(path, bool(model.num_classes))
        if is_there:
            check_latents(latents, made_of, self.dtype)
            check_content(latents, model, numbers, batch)
        runner.logger.info(
            f'Training from latents: {latents.nbytes / 1e6:,.1f} MB of {latents.dtype} in {path}, '
            f'{"verified" if is_there else "encoded"} in {time.perf_counter() - start:.1f} s'
        )
        return latents


def check_model(model: nn.Module) -> None:
    """Raise ConfigError unless a model can be trained from latents alone."""
    if not hasattr(model, 'tokenizer') or not hasattr(getattr(model, 'head', None), 'needs_images'):
        raise ConfigError(f'LatentCacheHook: {type(model).__name__} is not an l-DAE: remove the hook')
    if model.head.needs_images:
        raise ConfigError(f'LatentCacheHook: {model.head.why_images}')


def write_latents(
    path: Path,
    model: nn.Module,
    dataset: Dataset,
    made_of: dict,
    dtype: str = 'float16',
    batch_size: int = 256,
    **reading,
) -> None:
    """Encode all images of ``dataset`` by the tokenizer of ``model``, each process its shards, ``batch_size`` at a
    time, into one folder; ``reading`` are ``num_workers`` and ``worker_init_fn`` of a DataLoader, ``made_of`` is for
    the manifest.

    The folder is there when it is whole, or not at all. All processes must see it. Raises ConfigError if there is no
    room, the folder can't be written, or latents don't fit into ``dtype``, a key of ``DTYPES``."""
    geometry = model.tokenizer.geometry
    shape, with_label = (len(dataset), geometry.num_tokens, geometry.latent_dim), bool(model.num_classes)
    with new_latents(path, shape, dtype, with_label, made_of) as (folder, _):
        shards = shards_of(len(dataset))
        mine = range(get_rank(), len(shards), get_world_size())
        batches = {n: [list(shards[n][i : i + batch_size]) for i in range(0, len(shards[n]), batch_size)] for n in mine}
        own = dict(collate_fn=collate, generator=torch.Generator().manual_seed(0))
        loader = DataLoader(dataset, batch_sampler=list(chain(*batches.values())), **own, **reading)
        # A bar on rank 0 alone, and there on a terminal only.
        quiet = None if is_main_process() else True
        with tqdm(total=sum(len(shards[n]) for n in mine), desc='encode', unit='img', disable=quiet) as bar:
            encoded = _encoded(model, loader, bar)
            for number in mine:
                write_shard(folder, number, shape, dtype, islice(encoded, len(batches[number])))


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
    """Numbers of some images, spread over the data set, and the batch of them. Raises ConfigError if an image, read
    twice, isn't the same: there is augmentation, which a cache would freeze."""
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
    what = dict(
        tokenizer='another tokenizer or normalisation',
        data='another data set or pipeline',
        listing='other images or labels',
    )
    known = dict(listing=made_of.get('listing')) | dict(latents.made_of)  # earlier versions didn't keep it
    for key, words in what.items():
        if key in made_of and known.get(key) != made_of[key]:
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
