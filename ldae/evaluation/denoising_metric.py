# SPDX-License-Identifier: Apache-2.0
"""Validation while pre-training: how well images are denoised, by noise level."""

from collections import defaultdict
from collections.abc import Sequence

from mmengine.evaluator import BaseMetric

from ldae.registry import METRICS


@METRICS.register_module()
class DenoisingMetric(BaseMetric):
    """Mean loss and PSNR (dB) of denoised validation images, over all noise levels and for each time step.

    Reported as ``denoising/weighted_error`` (the loss, under a name that mmengine's logger doesn't smooth),
    ``denoising/psnr`` and ``denoising/psnr_t<timestep>``.
    """

    default_prefix = 'denoising'

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep three numbers of each sample that :meth:`LDAE.predict` returned."""
        for sample in data_samples:
            self.results.append(tuple(float(sample[key]) for key in ('timestep', 'denoising_loss', 'psnr')))

    def compute_metrics(self, results: list[tuple[float, float, float]]) -> dict[str, float]:
        levels = defaultdict(list)
        for timestep, _, psnr in results:
            levels[int(timestep)].append(psnr)
        metrics = dict(
            weighted_error=mean([loss for _, loss, _ in results]), psnr=mean([psnr for _, _, psnr in results])
        )
        return metrics | {f'psnr_t{t}': mean(levels[t]) for t in sorted(levels)}


def mean(values: list[float]) -> float:
    return sum(values) / len(values)
