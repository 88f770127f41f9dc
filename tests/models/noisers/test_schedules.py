# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
import torch

from ldae.models.noisers import schedules
from ldae.utils import ConfigError


def test_ddpm_linear_is_the_product_of_one_minus_beta():
    gamma, sigma = schedules.ddpm_linear(1000)
    product = 1.0
    for t in range(1000):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * t / 999)
        assert gamma[t].item() ** 2 == pytest.approx(product, abs=1e-12)
    np.testing.assert_allclose(gamma**2 + sigma**2, 1, atol=1e-12)


def test_linear_gamma_sq_falls_in_equal_steps_from_below_one_to_zero():
    gamma, sigma = schedules.linear_gamma_sq(1000)
    np.testing.assert_allclose(gamma**2, 1 - np.arange(1, 1001) / 1000, atol=1e-12)
    assert 1 > gamma[0] > gamma[-1] == 0
    np.testing.assert_allclose(gamma**2 + sigma**2, 1, atol=1e-12)


def test_linear_sigma_rises_from_zero_to_the_square_root_of_two():
    gamma, sigma = schedules.linear_sigma(1000)
    assert torch.equal(gamma, torch.ones(1000).double())
    np.testing.assert_allclose(sigma, np.linspace(0, math.sqrt(2), 1000), atol=1e-12)


def test_flow_is_the_straight_line_to_noise_and_the_levels_of_diffusers():
    gamma, sigma = schedules.flow(1000)
    np.testing.assert_allclose(sigma, np.arange(1, 1001) / 1000, atol=1e-12)
    assert torch.equal(gamma + sigma, torch.ones(1000).double())
    diffusers = pytest.importorskip('diffusers')
    np.testing.assert_allclose(sigma.flip(0), diffusers.FlowMatchEulerDiscreteScheduler().sigmas, atol=1e-6)


def test_single_level_has_variance_one_third():
    gamma, sigma = schedules.single_level(5)
    np.testing.assert_allclose(sigma**2, 1 / 3)
    np.testing.assert_allclose(gamma, 1)


@pytest.mark.parametrize('t', [0, 1, 500, 998, 999])
def test_weights_are_the_papers_at_every_kind_of_step(t):
    gamma, sigma = schedules.ddpm_linear()
    assert schedules.loss_weight('signal_share', gamma, sigma)[t].item() == pytest.approx(float(gamma[t]) ** 2)
    snr = float(gamma[t]) ** 2 / float(sigma[t]) ** 2
    assert schedules.loss_weight('snr', gamma, sigma)[t].item() == pytest.approx(snr)
    gamma, sigma = schedules.linear_sigma()
    expected = 1 / (1 + float(sigma[t]) ** 2)
    assert schedules.loss_weight('signal_share', gamma, sigma)[t].item() == pytest.approx(expected)
    assert schedules.loss_weight('uniform', gamma, sigma)[t].item() == 1


def test_snr_weight_is_finite_where_there_is_no_noise():
    assert schedules.loss_weight('snr', *schedules.linear_sigma()).isfinite().all()


def test_an_unknown_weighting_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'snr'"):
        schedules.loss_weight('srn', *schedules.linear_sigma())


def test_ddpm_linear_agrees_with_diffusers_at_every_step():
    diffusers = pytest.importorskip('diffusers')
    scheduler = diffusers.DDPMScheduler(1000, beta_start=1e-4, beta_end=0.02, beta_schedule='linear')
    gamma, sigma = schedules.ddpm_linear()
    np.testing.assert_allclose(gamma**2, scheduler.alphas_cumprod, atol=1e-6)
    clean, noise, t = torch.randn(1000, 3), torch.randn(1000, 3), torch.arange(1000)
    noisy = gamma.float()[:, None] * clean + sigma.float()[:, None] * noise
    torch.testing.assert_close(noisy, scheduler.add_noise(clean, noise, t), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('t', [1, 300, 999])
def test_snr_weight_agrees_with_diffusers(t):
    training_utils = pytest.importorskip('diffusers.training_utils')
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(1000, beta_start=1e-4, beta_end=0.02, beta_schedule='linear')
    expected = training_utils.compute_snr(scheduler, torch.tensor([t])).item()
    weight = schedules.loss_weight('snr', *schedules.ddpm_linear())
    assert weight[t].item() == pytest.approx(expected, rel=1e-3)
