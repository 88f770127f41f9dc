# SPDX-License-Identifier: Apache-2.0
"""The Fréchet distance of predicted images to clean ones, for validation and ``tools/test.py``."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from ldae.registry import METRICS
from ldae.utils import ConfigError, PositiveInt, Seed, checked
from ldae.utils.collective import from_main_process
from ldae.utils.optional import import_extra

from .distances import compare
from .extractors import build_extractor
from .statistics import RunningStatistics


@METRICS.register_module()
class FrechetMetric(BaseMetric):
    """How far predicted images are from the clean ones as a set: Fréchet distance, kernel distance, precision, recall.

    Reported as ``frechet/distance``, ``frechet/kernel_distance``, ``frechet/precision``, ``frechet/recall`` and
    ``frechet/images``; the first two as ``frechet/fid`` and ``frechet/kid`` if the features are Inception's, and only
    then. Memory does not depend on the number of images.

    Args:
        images, reference: Fields of the model's predictions that are compared: pixels (C, H, W) in [0, 255], RGB or grey.
        features, weights, inception: The network: see :func:`ldae.generation.build_extractor`.
        subset: Images whose features are kept, for what needs more than mean and covariance.
        seed: Of their choice.
        device: Of the network.
        **kwargs: As in mmengine's ``BaseMetric``.

    Raises:
        ConfigError: No network is named, or its file or library is missing or wrong.
    """

    default_prefix = 'frechet'

    @checked
    def __init__(
        self,
        images: str = 'denoised_pixels',
        reference: str = 'clean_pixels',
        features: str | None = None,
        weights: str | None = None,
        inception: str | None = None,
        subset: PositiveInt = 10_000,
        seed: Seed = 0,
        device: str | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        import_extra('torch_fidelity', 'generation', 'FrechetMetric')
        self.fields, self.subset, self.seed = (images, reference), subset, seed
        self.extractor = build_extractor(features, weights, inception, device)
        self._begin()

    def _begin(self) -> None:
        options = dict(seed=self.seed, rank=get_rank(), world=get_world_size())
        self.sides = [RunningStatistics(self.extractor.dims, self.subset, **options) for _ in self.fields]

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Add features of a batch, but not of images that a sampler repeats to fill up the last process."""
        rank, world = get_rank(), get_world_size()
        samples = [sample for sample in data_samples if sample.get('sample_idx', rank) % world == rank]
        for side, field in zip(self.sides, self.fields, strict=True):
            if samples:
                side.add(self.extractor.run([_to_array(sample[field]) for sample in samples]))

    def evaluate(self, size: int) -> dict[str, float]:
        """The figures of all images of all processes."""
        states = [all_gather_object(side.state()) for side in self.sides]
        metrics = None
        if is_main_process():
            statistics = [
                side.statistics(self.extractor.network, parts) for side, parts in zip(self.sides, states, strict=True)
            ]
            found = compare(*statistics, self.seed, self.fields)
            for note in found.notes:
                print_log(f'{found.name}: {note}', 'current', logging.WARNING)
            values = (found.frechet, found.kernel, found.precision, found.recall, statistics[0].count)
            metrics = dict(zip((*found.metric_names, 'precision', 'recall', 'images'), values, strict=True))
            print_log(f'{found.name}, of {found.dims:,} dimensions: {found.frechet:.4f}', 'current')
        self._begin()
        metrics = from_main_process(metrics)
        return {f'{self.prefix}/{name}': value for name, value in metrics.items() if value is not None}

    def compute_metrics(self, results: list) -> dict[str, float]:
        raise NotImplementedError  # evaluate() goes without a list of results


def _to_array(pixels: torch.Tensor) -> np.ndarray:
    """Pixels (C, H, W) in [0, 255] -> uint8 (H, W, 3)."""
    if len(pixels) not in (1, 3):
        raise ConfigError(f'FrechetMetric compares grey or RGB images, and these have {len(pixels)} bands: remove it')
    pixels = pixels.detach().float().round().clamp(0, 255).to(torch.uint8)
    return pixels.expand(3, -1, -1).permute(1, 2, 0).cpu().numpy()
