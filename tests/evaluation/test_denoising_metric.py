# SPDX-License-Identifier: Apache-2.0
import torch
from mmengine.evaluator import Evaluator
from mmpretrain.structures import DataSample

from ldae.evaluation import DenoisingMetric


def test_reports_means_over_all_and_by_noise_level():
    evaluator = Evaluator(DenoisingMetric())
    for values in ([(100, 1.0, 30.0), (900, 3.0, 10.0)], [(100, 2.0, 20.0)]):
        samples = []
        for t, loss, psnr in values:
            sample = DataSample()
            sample.set_data(
                dict(timestep=torch.tensor(t), denoising_loss=torch.tensor(loss), psnr=torch.tensor(psnr))
            )
            samples.append(sample)
        evaluator.process(samples)
    assert evaluator.evaluate(3) == {
        'denoising/weighted_error': 2.0,
        'denoising/psnr': 20.0,
        'denoising/psnr_t100': 25.0,
        'denoising/psnr_t900': 10.0,
    }
