# SPDX-License-Identifier: Apache-2.0
"""Features of one pass over a data set, kept on disk: many probes of a checkpoint cost one forward pass."""

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import barrier, get_rank, get_world_size, is_main_process
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler
from tqdm import tqdm

from ldae.utils import ConfigError
from ldae.utils.collective import failing_together, from_main_process
from ldae.utils.files import atomic_write_text
from ldae.utils.models import unwrapped
from ldae.version import __version__

from .features import (
    check_settings,
    features_of_settings,
    labels_of,
    num_blocks,
    resolve_block_numbers,
    resolve_blocks,
)

MANIFEST = 'manifest.json'
#: Raised when files written before can't be used any more.
FORMAT = 1
#: What modules note down as they are used: it changes no feature.
MEMORIES = ('_is_init', '_known_fitted')
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
    """The features (n, C) of one setting, in files: ``features[rows]`` reads rows, as float32.

    ``rows`` is a slice or a tensor of row numbers. Nothing is kept in memory.
    """

    def __init__(self, shards: list[np.ndarray], num_images: int) -> None:
        self._shards, self._num_images = shards, num_images

    dtype = torch.float32

    @property
    def shape(self) -> torch.Size:
        return torch.Size((self._num_images, self._shards[0].shape[-1]))

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
        numbers = rows.cpu().numpy()
        out = np.empty((len(numbers), self.shape[1]), np.float16)
        shard, place = numbers % len(self._shards), numbers // len(self._shards)
        for i, values in enumerate(self._shards):
            out[shard == i] = values[place[shard == i]]
        return torch.from_numpy(out)


class FeatureCache(Mapping):
    """Features of a data set, memory-mapped: a mapping of :class:`FeatureSetting` to :class:`CachedFeatures`.

    Args:
        folder: What :func:`cache_features` has written.
        settings: The settings to show, in this order; None shows all.

    Attributes:
        labels: (n,) int64.
        settings: The list of settings.
        seconds: What the pass over the data took.

    Raises:
        ConfigError: The folder holds no finished cache, or files of it are missing or cut short.
    """

    def __init__(self, folder: str | os.PathLike, settings: Sequence[FeatureSetting] | None = None) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        if self.manifest is None:
            raise ConfigError(f'{folder} holds no finished feature cache: let ldae probe write one')
        self.seconds: float = self.manifest['seconds']
        self.num_images: int = self.manifest['num_images']
        self._variants = list(product(self.manifest['timesteps'], self.manifest['noisy']))
        self.settings = list(settings or settings_of(self.manifest))
        self._files = {
            block: [self._load(f'block_{block}', rank) for rank in range(self.manifest['num_shards'])]
            for block in self.manifest['blocks']
        }
        self.labels = torch.empty(self.num_images, dtype=torch.int64)
        for rank in range(self.manifest['num_shards']):
            self.labels[rank :: self.manifest['num_shards']] = torch.from_numpy(
                np.array(self._load('labels', rank))
            )

    def _load(self, name: str, rank: int) -> np.ndarray:
        path = self.folder / file_name(name, rank)
        try:
            return np.load(path, mmap_mode='r', allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ConfigError(f'{path} is missing or damaged ({error}): delete {self.folder}') from error

    def __iter__(self) -> Iterator[FeatureSetting]:
        return iter(self.settings)

    def __len__(self) -> int:
        return len(self.settings)

    def __getitem__(self, setting: FeatureSetting) -> CachedFeatures:
        variant = self._variants.index((setting.timestep, setting.noisy))
        return CachedFeatures([shard[variant] for shard in self._files[setting.block]], self.num_images)

    def select(self, block: int | None = None, timestep: int | None = None, noisy: bool = False) -> Tensor:
        """Features (n, C) float32 of one setting, in memory.

        ``block`` may count from the end; None is the last. ``timestep`` None is the one there is.

        Raises:
            ConfigError: The cache holds no such setting.
        """
        (block,) = resolve_block_numbers(self.manifest['depth'], None if block is None else [block])
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
    desc: str = 'features',
) -> FeatureCache:
    """Features of every image after each block, at each time step, of each kind of input, from one pass over the data.

    They lie in a folder below ``folder`` whose name follows from the model's weights and structure, the preprocessing and
    ``data``; what is there already is not computed again. Each image is read once. In a distributed run each rank writes
    a file of its own; all get the whole. Memory is that of a batch.

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
        desc: What the progress bar says. The bar is shown on a terminal only.

    Raises:
        ConfigError: Features that aren't finite or exceed float16, data without labels, a shuffling sampler, a wrong block
            or time step, a disk that is full.
    """
    _check_sampler(dataloader)
    numbers = resolve_blocks(model, blocks)
    timesteps, noisy = check_settings(model, timesteps, noisy)
    base = cache_key(model, data_preprocessor, len(dataloader.dataset), data)
    wanted = [FeatureSetting(*s) for s in product(numbers, timesteps, noisy)]
    found = None if refresh else find_cache(folder, base, wanted)
    found = from_main_process(found)
    if found is None:
        layout = dict(blocks=numbers, timesteps=list(timesteps), noisy=list(noisy), depth=num_blocks(model))
        found = _write_cache(model, dataloader, data_preprocessor, Path(folder), base, layout, desc)
    return FeatureCache(found, wanted)


def cache_key(model: nn.Module, data_preprocessor: Callable | None, num_images: int, data: Any) -> str:
    """Hash of what decides about features: weights, structure and options of the model, preprocessing, and the data's
    description."""
    digest = hashlib.sha256()
    preprocessor = getattr(data_preprocessor, 'func', data_preprocessor)  # what functools.partial wraps
    for module in (unwrapped(model), preprocessor):
        if isinstance(module, nn.Module):
            _hash_module(digest, module)
    words = [FORMAT, __version__, num_images, str(torch.is_autocast_enabled()), data]
    digest.update(json.dumps(words, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:24]


def _hash_module(digest: Any, module: nn.Module) -> None:
    """Types, plain options such as the number of heads, parameters and buffers."""
    for name, part in module.named_modules():
        options = {
            key: value for key, value in vars(part).items() if key not in MEMORIES and _is_plain(value)
        }
        digest.update(repr((name, type(part).__name__, sorted(options.items()))).encode())
    tensors = [*module.named_parameters(), *module.named_buffers()]
    for name, value in tensors:
        value = value.detach().cpu().contiguous()
        digest.update(repr((name, value.dtype, tuple(value.shape))).encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def find_cache(folder: str | os.PathLike, key: str, wanted: Sequence[FeatureSetting]) -> Path | None:
    """A finished cache below ``folder`` that has all that is wanted."""
    for path in sorted(Path(folder).glob(f'{key}-*')):
        manifest = read_manifest(path)
        if manifest is not None and set(wanted) <= set(settings_of(manifest)):
            return path
    return None


def read_manifest(path: Path) -> dict | None:
    """What is written last: None while a cache isn't finished."""
    try:
        return json.loads((path / MANIFEST).read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None


def settings_of(manifest: dict) -> list[FeatureSetting]:
    """All settings of a cache."""
    return [FeatureSetting(*s) for s in product(*(manifest[key] for key in ('blocks', 'timesteps', 'noisy')))]


def file_name(name: str, rank: int) -> str:
    """``labels`` and ``block_<number>``, one file a process."""
    return f'{name}.{rank}.npy'


def _write_cache(
    model: nn.Module,
    dataloader: DataLoader,
    data_preprocessor: Callable[[dict], dict] | None,
    folder: Path,
    key: str,
    layout: dict,
    desc: str,
) -> Path:
    """The pass: into a hidden folder, which gets its name when all ranks are done."""
    start = time.perf_counter()
    settings = hashlib.sha256(json.dumps(layout).encode()).hexdigest()[:8]
    finished, unfinished = folder / f'{key}-{settings}', None
    try:
        if is_main_process():
            unfinished = folder / f'.{finished.name}.{uuid.uuid4().hex[:8]}'
            unfinished.mkdir(parents=True)
        unfinished = from_main_process(unfinished)
        with failing_together():
            _write_shard(model, dataloader, data_preprocessor, unfinished, layout, desc)
        if is_main_process():
            size = dict(num_images=len(dataloader.dataset), num_shards=get_world_size())
            manifest = dict(layout, **size, seconds=time.perf_counter() - start)
            atomic_write_text(unfinished / MANIFEST, json.dumps(manifest, indent=2) + '\n')
            _put_in_place(unfinished, finished)
        barrier()
    except BaseException:
        if is_main_process() and unfinished is not None:
            shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return finished


def _put_in_place(unfinished: Path, finished: Path) -> None:
    """Give a whole cache its name, in place of an older one."""
    if finished.exists():
        old = unfinished.with_name(f'{unfinished.name}.old')
        finished.rename(old)
        shutil.rmtree(old, ignore_errors=True)
    unfinished.rename(finished)


@torch.no_grad()
def _write_shard(
    model: nn.Module,
    dataloader: DataLoader,
    data_preprocessor: Callable[[dict], dict] | None,
    folder: Path,
    layout: dict,
    desc: str,
) -> None:
    """This rank's images: as its sampler deals them out, every W-th."""
    rank, world = get_rank(), get_world_size()
    numbers = range(len(dataloader.dataset))[rank::world]
    num_variants = len(layout['timesteps']) * len(layout['noisy'])
    device = next((param.device for param in model.parameters()), torch.device('cpu'))
    shards, labels, filled = {}, np.empty(len(numbers), np.int64), 0
    try:
        for batch in _with_progress(dataloader, desc):
            batch = batch if data_preprocessor is None else data_preprocessor(batch)
            # The sampler's last images may be repeated ones.
            index = numbers[filled : filled + len(batch['inputs'])]
            images = batch['inputs'][: len(index)].to(device)
            labels[filled : filled + len(index)] = labels_of(batch)[: len(index)]
            variants = features_of_settings(
                model, images, layout['blocks'], layout['timesteps'], layout['noisy'], index
            )
            for variant, rows_of_blocks in enumerate(variants) if len(index) else ():
                for block, rows in zip(layout['blocks'], rows_of_blocks, strict=True):
                    path = folder / file_name(f'block_{block}', rank)
                    if block not in shards:
                        shards[block] = _Shard(path, (num_variants, len(numbers), rows.shape[1]))
                    shards[block].write(variant, filled, _to_half(rows, block))
            filled += len(index)
        if filled < len(numbers):
            raise ConfigError(
                f'features: the data loader gave {filled} of {len(numbers)} images: set drop_last=False'
            )
    except OSError as error:
        raise ConfigError(
            f'{folder.parent}: features cannot be written ({error.strerror or error})'
        ) from error
    finally:
        for shard in shards.values():
            shard.close()
    np.save(folder / file_name('labels', rank), labels)


def _with_progress(dataloader: DataLoader, desc: str) -> tqdm:
    return tqdm(dataloader, desc=desc, unit='batch', leave=False, disable=None if is_main_process() else True)


class _Shard:
    """A .npy file of float16 (variants, rows, channels) that is filled piece by piece."""

    def __init__(self, path: Path, shape: tuple[int, int, int]) -> None:
        self.file, self.shape = path.open('wb'), shape
        header = dict(descr='<f2', fortran_order=False, shape=shape)
        np.lib.format.write_array_header_1_0(self.file, header)
        self.start = self.file.tell()
        self.file.truncate(self.start + 2 * int(np.prod(shape)))

    def write(self, variant: int, row: int, values: Tensor) -> None:
        """Put (B, C) at a row of a variant."""
        self.file.seek(self.start + 2 * self.shape[2] * (variant * self.shape[1] + row))
        self.file.write(values.contiguous().numpy().data)

    def close(self) -> None:
        self.file.close()


def _to_half(rows: Tensor, block: int) -> Tensor:
    """Rows (B, C) as float16 on the CPU."""
    rows = rows.float()
    # One number to read back: the largest is NaN or infinity where any is.
    largest = float(rows.abs().amax())
    if not largest <= LARGEST:
        what = f'reach {largest:.3g}, beyond float16' if largest < float('inf') else 'hold NaN or infinity'
        raise ConfigError(f'features of block {block} {what}: check the checkpoint')
    return rows.half().cpu()


def _check_sampler(dataloader: DataLoader) -> None:
    sampler, world = dataloader.sampler, get_world_size()
    if isinstance(sampler, RandomSampler) or getattr(sampler, 'shuffle', False):
        raise ConfigError('features: the sampler shuffles: set shuffle=False')
    if getattr(sampler, 'world_size', 1) != world:
        raise ConfigError(
            f'features: the sampler must deal out images to {world} processes: use DefaultSampler'
        )
