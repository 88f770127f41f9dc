# SPDX-License-Identifier: Apache-2.0
"""How well images are denoised while pre-training, reconstructed while a tokenizer is trained; and whether features
collapse, which needs no labels."""

from collections import defaultdict
from collections.abc import Sequence

import torch
from mmengine.dist import all_reduce
from mmengine.evaluator import BaseMetric
from torch import Tensor

from ldae.registry import METRICS
from ldae.utils.optional import import_extra


@METRICS.register_module()
class DenoisingMetric(BaseMetric):
    """Mean loss and PSNR (dB) of denoised validation images, over all noise levels and for each time step.

    Reported as ``denoising/weighted_error`` (the loss, under a name that mmengine's logger doesn't smooth),
    ``denoising/psnr``, and of each time step ``denoising/weighted_error_t<timestep>`` and ``denoising/psnr_t<timestep>``."""

    default_prefix = 'denoising'

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep three numbers of each sample that :meth:`LDAE.predict` returned."""
        keys = ('timestep', 'denoising_loss', 'psnr')
        numbers = [torch.stack([torch.as_tensor(sample[key]).double() for key in keys]) for sample in data_samples]
        self.results += map(tuple, torch.stack(numbers).tolist())  # read from the device once

    def compute_metrics(self, results: list[tuple[float, float, float]]) -> dict[str, float]:
        levels = defaultdict(list)
        for timestep, *numbers in results:
            levels[int(timestep)].append(numbers)
        metrics = _means('', [numbers for _, *numbers in results])
        for t in sorted(levels):
            metrics |= _means(f'_t{t}', levels[t])
        return metrics


def _means(suffix: str, rows: list[list[float]]) -> dict[str, float]:
    return {
        f'{name}{suffix}': mean(list(c))
        for name, c in zip(('weighted_error', 'psnr'), zip(*rows, strict=True), strict=True)
    }


@METRICS.register_module()
class ReconstructionMetric(BaseMetric):
    """PSNR (dB) and SSIM of reconstructed validation images, of 8-bit range, averaged over images.

    Reported as ``reconstruction/psnr`` and ``reconstruction/ssim``; computed by torchmetrics (extra ``metrics``)."""

    default_prefix = 'reconstruction'

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._library = import_extra('torchmetrics.functional.image', 'metrics', 'ReconstructionMetric')

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep two numbers of each sample that :meth:`TokenizerTrainer.predict` returned."""
        clean, output = (torch.stack([s[key] for s in data_samples]) for key in ('clean', 'reconstructed'))
        options = dict(data_range=255.0, reduction='none')
        psnr = self._library.peak_signal_noise_ratio(output, clean, dim=(1, 2, 3), **options)
        ssim = self._library.structural_similarity_index_measure(output, clean, **options)
        self.results += torch.stack([psnr, ssim.reshape(-1)], dim=1).tolist()

    def compute_metrics(self, results: list[tuple[float, float]]) -> dict[str, float]:
        psnr, ssim = torch.tensor(results, dtype=torch.float64).mean(dim=0).tolist()
        return dict(psnr=psnr, ssim=ssim)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


EPSILON = 1e-7


def effective_rank(singular_values: Tensor) -> float:
    """RankMe (Garrido et al., 2023): exp(-sum_k p_k log p_k), p_k = s_k / sum(s) + 1e-7; between 1 and their number."""
    s = singular_values.double()
    p = s / s.sum() + EPSILON
    return float((-(p * p.log()).sum()).exp())


class FeatureStatistics:
    """Effective rank and norms of a feature matrix Z (n, C) that comes in parts, on every rank its own.

    Singular values are roots of the eigenvalues of Z^T Z in float64, which resolves them to 1e-8 of the largest; all
    that is kept, and exchanged between ranks, is of size C x C."""

    def __init__(self) -> None:
        self.gram: Tensor | None = None
        self.sums: Tensor | None = None

    def add(self, rows: Tensor) -> None:
        """rows (b, C), on any device."""
        rows = rows.double()
        sums = torch.stack([rows.new_tensor(len(rows)), rows.norm(dim=1).sum()])
        gram = rows.t() @ rows
        self.gram = gram if self.gram is None else self.gram + gram
        self.sums = sums if self.sums is None else self.sums + sums

    def summary(self) -> dict[str, float]:
        """``effective_rank``, ``feature_norm`` (mean over samples), ``feature_norm_std``, and ``images``; all NaN where
        a feature isn't finite."""
        all_reduce(self.gram)
        all_reduce(self.sums)
        count, total = self.sums.tolist()
        mean = total / count
        figures = dict(effective_rank=float('nan'), feature_norm=mean, feature_norm_std=float('nan'))
        if torch.isfinite(self.gram).all():
            singular = torch.linalg.eigvalsh(self.gram).clamp(min=0).sqrt()
            variance = float(self.gram.trace()) / count - mean**2
            figures.update(effective_rank=effective_rank(singular), feature_norm_std=max(variance, 0) ** 0.5)
        return figures | dict(images=count)
