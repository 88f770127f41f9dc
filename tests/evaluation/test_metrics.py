# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmpretrain.structures import DataSample

from ldae.evaluation import DenoisingMetric, ReconstructionMetric
from ldae.registry import METRICS


def test_psnr_is_averaged_over_images_and_ssim_is_one_for_equal_ones():
    clean = torch.randint(0, 256, (6, 1, 20, 20), generator=torch.Generator().manual_seed(0)).float()
    errors = torch.tensor([1.0, 2, 5, 10, 20, 40]).view(-1, 1, 1, 1)
    metric = METRICS.build(dict(type='ldae.ReconstructionMetric'))
    assert isinstance(metric, ReconstructionMetric)
    for part in (slice(0, 4), slice(4, 6)):  # batches of different size
        samples = [dict(clean=c, reconstructed=c + e) for c, e in zip(clean[part], errors[part], strict=True)]
        metric.process({}, samples)
    values = metric.evaluate(6)
    expected = np.mean([20 * np.log10(255 / e) for e in errors.flatten().tolist()])
    assert values['reconstruction/psnr'] == pytest.approx(expected, rel=1e-5)
    assert 0.8 < values['reconstruction/ssim'] < 1

    metric.process({}, [dict(clean=c, reconstructed=c) for c in clean])
    assert metric.evaluate(6)['reconstruction/ssim'] == pytest.approx(1)


def test_reports_means_over_all_and_by_noise_level():
    evaluator = Evaluator(DenoisingMetric())
    for values in ([(100, 1.0, 30.0), (900, 3.0, 10.0)], [(100, 2.0, 20.0)]):
        samples = []
        for t, loss, psnr in values:
            sample = DataSample()
            sample.set_data(dict(timestep=torch.tensor(t), denoising_loss=torch.tensor(loss), psnr=torch.tensor(psnr)))
            samples.append(sample)
        evaluator.process(samples)
    assert evaluator.evaluate(3) == {
        'denoising/weighted_error': 2.0,
        'denoising/psnr': 20.0,
        'denoising/weighted_error_t100': 1.5,
        'denoising/psnr_t100': 25.0,
        'denoising/weighted_error_t900': 3.0,
        'denoising/psnr_t900': 10.0,
    }
