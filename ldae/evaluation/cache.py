# SPDX-License-Identifier: Apache-2.0
"""Features of one pass over a data set, kept on disk: many probes of a checkpoint cost one forward pass."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size, is_main_process
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler
from tqdm import tqdm

from ldae.datasets import store
from ldae.utils import ConfigError
from ldae.utils.collective import failing_together, from_main_process
from ldae.utils.models import hash_tensors, unwrapped
from ldae.utils.ranges import check_value
from ldae.version import __version__

from .features import (
    blocks_of,
    check_pooling,
    features_of_settings,
    labels_of,
    num_blocks,
    resolve_blocks,
    resolve_inputs,
)

#: A part of each cache's name, raised when those written before can't be used any more.
FORMAT = 2
FEATURES = store.Kind(
    'features',
    '`ldae probe`',
    'manifest.json',
    'delete {folder}, and they are computed anew',
    dict(
        num_images=store.Count,
        depth=int,
        blocks=list[int],
        timesteps=list[int | None],
        noisy=list[bool],
        tokens=bool | None,  # those written before have none
    ),
)
#: Options that modules note down as they are used: they change no feature.
NOTED_OPTIONS = ('_is_init', '_known_fitted', '_non_blocking')
LARGEST = torch.finfo(torch.float16).max


class FeatureSetting(NamedTuple):
    """Which features: after which block, at which time step (None: the encoder has none), of noisy or clean input."""

    block: int
    timestep: int | None = None
    noisy: bool = False

    def __str__(self) -> str:
        parts = [f'block {self.block}', *([] if self.timestep is None else [f't = {self.timestep}'])]
        return ', '.join([*parts, *(['noisy'] if self.noisy else [])])


class CachedFeatures:
    """The features (n, C) of one setting, or its tokens (n, N, C), in files: ``features[rows]`` reads rows, as float32.

    ``rows`` is a slice or a tensor of row numbers. Nothing is kept in memory."""

    def __init__(self, shards: list[np.ndarray], num_images: int) -> None:
        self._shards, self._num_images = shards, num_images

    dtype = torch.float32

    @property
    def shape(self) -> torch.Size:
        return torch.Size((self._num_images, *self._shards[0].shape[1:]))

    def __len__(self) -> int:
        return self._num_images

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        return self.read(rows).float()

    def read(self, rows: slice | Tensor = slice(None)) -> Tensor:
        """Rows as they are kept, in float16."""
        if isinstance(rows, slice):
            if len(self._shards) == 1:
                return torch.from_numpy(np.array(self._shards[0][rows]))
            rows = torch.arange(len(self))[rows]
        places, numbers = np.divmod(rows.cpu().numpy(), len(self._shards))
        return torch.from_numpy(store.take(self._shards, numbers, places))


class FeatureCache(Mapping):
    """Features of a data set, memory-mapped: a mapping of :class:`FeatureSetting` to :class:`CachedFeatures`, of all
    settings that :func:`cache_features` has written or of those named, in this order; and ``labels`` (n,) int64, and
    the ``seconds`` that the pass over the data took. Raises ConfigError if the folder holds no finished cache, or
    files of it are missing or cut short."""

    def __init__(self, folder: str | os.PathLike, settings: Sequence[FeatureSetting] | None = None) -> None:
        self.folder = Path(folder)
        found = store.Store(self.folder, FEATURES)
        check_value(f'{self.folder / FEATURES.manifest}: seconds', found.manifest.get('seconds'), float)
        self._layout, self._shards = found.settings, found.shards
        self.seconds: float = found.manifest['seconds']
        self.num_images: int = self._layout['num_images']
        self._variants = list(product(self._layout['timesteps'], self._layout['noisy']))
        self.settings = list(settings or settings_of(self._layout))
        world = len(self._shards)
        self._counts = [len(range(self.num_images)[rank::world]) for rank in range(world)]
        shards = zip(self._shards, self._counts, strict=True)
        labels = [shard.checked(store.LABELS, 'iu', count) for shard, count in shards]
        self.labels = torch.empty(self.num_images, dtype=torch.int64)
        for rank, part in enumerate(labels):
            self.labels[rank::world] = torch.from_numpy(np.array(part))

    def __iter__(self) -> Iterator[FeatureSetting]:
        return iter(self.settings)

    def __len__(self) -> int:
        return len(self.settings)

    def __getitem__(self, setting: FeatureSetting) -> CachedFeatures:
        return self._read(setting, file_of(setting.block), None)

    def tokens(self, setting: FeatureSetting) -> CachedFeatures:
        """The patch tokens (n, N, C) of a setting, of a cache that was written with them."""
        if not self._layout.get('tokens'):
            raise ConfigError(
                f'{self.folder} holds averages alone: cache_features(tokens=True) keeps patch tokens, too'
            )
        return self._read(setting, tokens_file_of(setting.block), None, None)

    def _read(self, setting: FeatureSetting, name: str, *shape: None) -> CachedFeatures:
        variant = self._variants.index((setting.timestep, setting.noisy))
        arrays = [
            shard.checked(name, 'f', len(self._variants), count, *shape)[variant]
            for shard, count in zip(self._shards, self._counts, strict=True)
        ]
        return CachedFeatures(arrays, self.num_images)

    def select(self, block: int | None = None, timestep: int | None = None, noisy: bool = False) -> Tensor:
        """Features (n, C) float32 of one setting, in memory.

        ``block`` may count from the end; None is the last. ``timestep`` None is the one there is. Raises ConfigError if
        the cache holds no such setting."""
        depth = self._layout['depth']
        beyond = max([depth, *self._layout['blocks']]) - depth
        (block,) = resolve_blocks(depth, None if block is None else [block], beyond)
        timesteps = {setting.timestep for setting in self.settings}
        if timestep is None and len(timesteps) == 1:
            (timestep,) = timesteps
        setting = FeatureSetting(block, timestep, noisy)
        if setting not in self.settings:
            known = '; '.join(map(str, self.settings[:8]))
            raise ConfigError(f'{self.folder} holds no features of {setting}: it has {known}')
        return self[setting][:]


def cache_features(
    model: nn.Module,
    dataloader: DataLoader,
    data_preprocessor: Callable[[dict], dict] | None,
    folder: str | os.PathLike,
    blocks: Sequence[int] | None = None,
    timesteps: Sequence[int] | None = None,
    noisy: Sequence[bool] = (False,),
    data: Any = None,
    refresh: bool = False,
    verify: bool = False,
    desc: str = 'features',
    pooling: str = 'mean',
    tokens: bool = False,
) -> FeatureCache:
    """Features of every image after each block, at each time step, of each kind of input, from one pass over the data.

    They lie in a folder below ``folder`` whose name follows from the model's weights and structure, the preprocessing
    and ``data``; what is there already is not computed again. Each image is read once. In a distributed run each rank
    writes a shard of its own; all get the whole. Memory is that of a batch. Raises ConfigError for features that aren't
    finite or exceed float16, data without labels, a shuffling sampler, a wrong block or time step, a disk that is full.

    Args:
        model: As :func:`ldae.evaluation.block_features` takes it, in evaluation mode.
        dataloader: As of :func:`ldae.evaluation.extract_features`; it must not shuffle.
        data_preprocessor: The model's; None passes the batch's inputs on.
        folder: Parent of the caches, made if it isn't there.
        blocks: Numbers from 1 or negative from the end; None takes the last.
        timesteps: Of an l-DAE; None takes the encoder's own.
        noisy: ``False`` for clean input, ``True`` for input noised to the time step; the noise of an image follows from its
            place in the data set.
        data: What the images are, such as the config of the data loader: anything that JSON holds. Images that change under
            the same description need ``refresh``.
        refresh: Compute anew even if there is a cache.
        verify: Compare all files of a cache with their checksums; without it, those of labels alone.
        desc: What the progress bar says.
        pooling: As of :func:`ldae.evaluation.block_features`.
        tokens: Keep patch tokens beside their average, for :meth:`FeatureCache.tokens`: as many times its size as an image
            has patches.
    """
    _check_sampler(dataloader)
    numbers = blocks_of(model, blocks)
    check_pooling(model, pooling, numbers)
    timesteps, noisy = resolve_inputs(model, timesteps, noisy)
    # Caches of averages are named as they were before there was another pooling.
    described = data if pooling == 'mean' else [data, pooling]
    base = cache_key(model, data_preprocessor, len(dataloader.dataset), described)
    wanted = [FeatureSetting(*s) for s in product(numbers, timesteps, noisy)]
    found = None if refresh else find_cache(folder, base, wanted, tokens)
    found = from_main_process(found)
    if found is None:
        _tell_of_earlier(Path(folder))
        layout = dict(blocks=numbers, timesteps=list(timesteps), noisy=list(noisy), depth=num_blocks(model))
        layout['num_images'], start = len(dataloader.dataset), time.perf_counter()
        layout |= dict(tokens=True) if tokens else {}
        found = Path(folder) / f'{base}-{hashlib.sha256(json.dumps(layout).encode()).hexdigest()[:8]}'
        with store.new_store(found, FEATURES, layout, get_world_size(), replace=True) as (unfinished, entries):
            _write_shard(model, dataloader, data_preprocessor, unfinished, layout, desc, pooling)
            entries['seconds'] = time.perf_counter() - start
    elif verify:
        with failing_together():
            if is_main_process():
                store.check_files(found, FEATURES)
    return FeatureCache(found, wanted)


def cache_key(model: nn.Module, data_preprocessor: Callable | None, num_images: int, data: Any) -> str:
    """Hash of what decides about features: weights, structure and options of the model, preprocessing, and the data's
    description."""
    digest = hashlib.sha256()
    preprocessor = getattr(data_preprocessor, 'func', data_preprocessor)  # what functools.partial wraps
    for module in (unwrapped(model), preprocessor):
        if isinstance(module, nn.Module):
            # Types, plain options such as the number of heads, parameters and buffers.
            for name, part in module.named_modules():
                options = {k: value for k, value in vars(part).items() if k not in NOTED_OPTIONS and _is_plain(value)}
                digest.update(repr((name, type(part).__name__, sorted(options.items()))).encode())
            hash_tensors(digest, module)
    casts = [kind for kind in ('cpu', 'cuda') if torch.is_autocast_enabled(kind)]
    precision = str([torch.get_autocast_dtype(kind) for kind in casts] or False)
    words = [FORMAT, __version__, num_images, precision, data]
    digest.update(json.dumps(words, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:24]


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def find_cache(
    folder: str | os.PathLike, key: str, wanted: Sequence[FeatureSetting], tokens: bool = False
) -> Path | None:
    """A finished cache below ``folder`` that has all that is wanted."""
    for path in sorted(Path(folder).glob(f'{key}-*')):
        with suppress(ConfigError):
            layout = store.read_manifest(path, FEATURES)['settings']
            if set(wanted) <= set(settings_of(layout)) and (layout.get('tokens') or not tokens):
                return path
    return None


@lru_cache  # for a folder, not for each data set of a probe
def _tell_of_earlier(folder: Path) -> None:
    """Say so if there are caches that earlier versions of ldae wrote, in another layout."""
    if names := sorted(path.parent.name for path in folder.glob('*/labels.0.npy')):
        print_log(
            f'{folder} holds features that an earlier version of ldae wrote, which are not read: they are computed anew, and '
            f'{", ".join(names)} may be deleted'
        )


def settings_of(layout: dict) -> list[FeatureSetting]:
    """All settings of a cache."""
    return [FeatureSetting(*s) for s in product(*(layout[key] for key in ('blocks', 'timesteps', 'noisy')))]


def file_of(block: int) -> str:
    """The file of a block's features (variants, images, C) in each shard."""
    return f'block_{block}.npy'


def tokens_file_of(block: int) -> str:
    """The file of a block's patch tokens (variants, images, N, C), where they are kept."""
    return f'tokens_{block}.npy'


@torch.no_grad()
def _write_shard(
    model: nn.Module,
    dataloader: DataLoader,
    data_preprocessor: Callable[[dict], dict] | None,
    folder: Path,
    layout: dict,
    desc: str,
    pooling: str,
) -> None:
    """This rank's images: as its sampler deals them out, every W-th."""
    rank, world = get_rank(), get_world_size()
    numbers = range(len(dataloader.dataset))[rank::world]
    num_variants = len(layout['timesteps']) * len(layout['noisy'])
    device = next((param.device for param in model.parameters()), torch.device('cpu'))
    names = [*map(file_of, layout['blocks']), *map(tokens_file_of, layout['blocks'] if layout.get('tokens') else ())]
    files, labels, filled = {}, np.empty(len(numbers), np.int64), 0
    bar = tqdm(dataloader, desc, unit='batch', leave=False, disable=None if is_main_process() else True)
    with store.new_shard(folder, rank) as (shard, _), ExitStack() as opened:
        for batch in bar:
            batch = batch if data_preprocessor is None else data_preprocessor(batch)
            # The sampler's last images may be repeated ones.
            index = numbers[filled : filled + len(batch['inputs'])]
            images = batch['inputs'][: len(index)].to(device)
            labels[filled : filled + len(index)] = labels_of(batch)[: len(index)]
            settings = (layout[key] for key in ('blocks', 'timesteps', 'noisy'))
            variants = features_of_settings(model, images, *settings, index, pooling, layout.get('tokens', False))
            for variant, rows_of_blocks in enumerate(variants) if len(index) else ():
                for name, rows in zip(names, rows_of_blocks, strict=True):
                    if name not in files:
                        shape = (num_variants, len(numbers), *rows.shape[1:])
                        files[name] = opened.enter_context(closing(store.ArrayFile(shard / name, shape, '<f2')))
                    place = (variant * len(numbers) + filled) * rows[0].numel()
                    files[name].write(_to_half(rows, name).contiguous().numpy(), place)
            filled += len(index)
        if filled < len(numbers):
            raise ConfigError(f'features: the data loader gave {filled} of {len(numbers)} images: set drop_last=False')
        np.save(shard / store.LABELS, labels)


def _to_half(rows: Tensor, name: str) -> Tensor:
    """Rows as float16 on the CPU."""
    rows = rows.float()
    # One number to read back: the largest is NaN or infinity where any is.
    largest = float(rows.abs().amax())
    if not largest <= LARGEST:
        what = f'reach {largest:.3g}, beyond float16' if largest < float('inf') else 'hold NaN or infinity'
        raise ConfigError(f'features of {name.removesuffix(".npy").replace("_", " ")} {what}: check the checkpoint')
    return rows.half().cpu()


def _check_sampler(dataloader: DataLoader) -> None:
    sampler, world = dataloader.sampler, get_world_size()
    if isinstance(sampler, RandomSampler) or getattr(sampler, 'shuffle', False):
        raise ConfigError('features: the sampler shuffles: set shuffle=False')
    if getattr(sampler, 'world_size', 1) != world:
        raise ConfigError(f'features: the sampler must deal out images to {world} processes: use DefaultSampler')
