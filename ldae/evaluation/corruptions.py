# SPDX-License-Identifier: Apache-2.0
"""Test images that are corrupted as those of ImageNet-C are (arXiv 1903.12261), by its functions at five severities."""

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ldae.utils import Choice, ConfigError, Range
from ldae.utils.optional import import_extra

#: The fifteen that ImageNet-C's mean is taken of.
COMMON = (
    *('gaussian_noise', 'shot_noise', 'impulse_noise', 'defocus_blur', 'glass_blur', 'motion_blur', 'zoom_blur'),
    *('snow', 'frost', 'fog', 'brightness', 'contrast', 'elastic_transform', 'pixelate', 'jpeg_compression'),
)
CORRUPTIONS = (*COMMON, 'speckle_noise', 'gaussian_blur', 'spatter', 'saturate')
Corruption = Annotated[str, Choice('all', *CORRUPTIONS)]
Severity = Annotated[int, Range(1, 5)]
#: Images smaller than that are continued by their edges while they are corrupted.
SMALLEST = 32


def resolve_corruptions(names: Sequence[str]) -> list[str]:
    """Each name once; ``'all'`` stands for the fifteen. Raises ConfigError if the library is missing."""
    if names:
        import_extra('imagecorruptions', 'robustness', 'a score on corrupted images')
    return list(dict.fromkeys(one for name in names for one in (COMMON if name == 'all' else [name])))


def corrupt(image: Tensor, name: str, severity: int, seed: Sequence[int], is_bgr: bool = False) -> Tensor:
    """A corrupted copy of an image, uint8 (C, H, W); what is random in it follows from ``seed`` alone.

    Of grey images, which the library takes as colour, the first channel counts. Raises ConfigError for an image that isn't
    of 8 bits, and grey or RGB."""
    if image.dtype != torch.uint8 or image.dim() != 3 or len(image) not in (1, 3):
        raise ConfigError(
            f'corruptions are of grey or RGB images of 8 bits: these are {image.dtype} {tuple(image.shape)}'
        )
    library = import_extra('imagecorruptions', 'robustness', 'a score on corrupted images')
    channels, height, width = image.shape
    pixels = image.permute(1, 2, 0).numpy()
    pixels = pixels[..., ::-1] if is_bgr else np.broadcast_to(pixels, (height, width, 3))
    pad = [(0, max(0, SMALLEST - size)) for size in (height, width)]
    pixels = np.pad(pixels, [*pad, (0, 0)], mode='edge')
    number = int(np.random.SeedSequence([*seed, CORRUPTIONS.index(name)]).generate_state(1)[0])
    # Some of the functions draw from numpy's global stream, others from numba's, which only a seed of theirs reaches.
    own = inspect.signature(library.corruption_dict[name]).parameters
    state = np.random.get_state()
    try:
        np.random.seed(number)
        options = dict(seed=number) if 'seed' in own else {}
        found = library.corrupt(np.ascontiguousarray(pixels), severity, name, **options)
    finally:
        np.random.set_state(state)
    found = found[:height, :width, ::-1] if is_bgr else found[:height, :width, :channels]
    return torch.from_numpy(found.copy()).permute(2, 0, 1)


class Corrupted(Dataset):
    """A data set with each image of its samples corrupted, by its number."""

    def __init__(self, dataset: Dataset, **how: Any) -> None:
        self.dataset, self.seed = dataset, how.pop('seed')
        self.corrupt = partial(corrupt, **how)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> dict:
        return self._changed(self.dataset[number], [number])

    def __getitems__(self, numbers: Sequence[int]) -> dict | list[dict]:
        if not hasattr(self.dataset, '__getitems__'):
            return [self[number] for number in numbers]
        found = self.dataset.__getitems__(numbers)
        if isinstance(found, dict):
            return self._changed(found, numbers)
        return [self._changed(sample, [number]) for sample, number in zip(found, numbers, strict=True)]

    def _changed(self, sample: dict, numbers: Sequence[int]) -> dict:
        inputs = sample['inputs']
        images = inputs.unflatten(0, (len(numbers), -1)) if inputs.dim() == 3 else inputs
        changed = [self.corrupt(x, seed=(self.seed, n)) for x, n in zip(images, numbers, strict=True)]
        return dict(sample, inputs=torch.stack(changed).view_as(inputs))


def corrupted_loader(loader: DataLoader, **how: Any) -> DataLoader:
    """A loader of the same images, corrupted; ``how`` are ``name``, ``severity``, ``seed`` and ``is_bgr``."""
    options = dict(num_workers=loader.num_workers, collate_fn=loader.collate_fn, sampler=loader.sampler)
    return DataLoader(Corrupted(loader.dataset, **how), loader.batch_size, **options)
