# SPDX-License-Identifier: Apache-2.0
"""Samplers with the exact denoiser of data whose distribution is known in closed form."""

import pytest
import torch
from torch import Tensor

from ldae.cli import options
from ldae.generation.samplers import SAMPLERS, DiffusionSampler, choose_timesteps
from ldae.models.noisers import schedules
from ldae.utils import ConfigError

SCHEDULES = ('ddpm_linear', 'linear_gamma_sq', 'linear_sigma', 'flow')
N = 5000
MEAN = torch.tensor([0.5, -0.3, 0.1], dtype=torch.float64)
FACTOR = torch.tensor([[1.0, 0.5, 0], [0, 0.7, 0.3], [0, 0, 0.4]], dtype=torch.float64)
COVARIANCE = FACTOR @ FACTOR.T


class Gaussian:
    """Normal data, and what the best possible network says of them with noise."""

    def __init__(self, schedule: str, predicts_noise: bool) -> None:
        self.gamma, self.sigma = getattr(schedules, schedule)(1000)
        self.predicts_noise = predicts_noise

    def noisy(self, t: int) -> Tensor:
        torch.manual_seed(1)
        z0 = MEAN + torch.randn(N, 3, dtype=torch.float64) @ FACTOR.T
        return (self.gamma[t] * z0 + self.sigma[t] * torch.randn(N, 3, dtype=torch.float64)).float().unsqueeze(1)

    def predict(self, z: Tensor, t: int) -> Tensor:
        gamma, sigma = self.gamma[t], self.sigma[t]
        of_z = gamma**2 * COVARIANCE + sigma**2 * torch.eye(3, dtype=torch.float64)
        z = z.double()
        z0 = MEAN + (z - gamma * MEAN) @ torch.linalg.solve(of_z, gamma * COVARIANCE)
        return (z - gamma * z0) / sigma if self.predicts_noise else z0

    def sampler(self, name: str, steps: int) -> DiffusionSampler:
        return DiffusionSampler(self.gamma, self.sigma, name, steps, self.predicts_noise)

    def moments(self, name: str, steps: int) -> tuple[Tensor, Tensor]:
        """Mean and covariance of what a sampler makes of its true start, where it draws no noise: exactly, since it maps
        normal latents linearly."""
        sampler = self.sampler(name, steps)
        gamma, sigma = self.gamma[sampler.start], self.sigma[sampler.start]
        mean, eye = gamma * MEAN, torch.eye(3, dtype=torch.float64)
        points = torch.cat([mean[None], mean + eye]).unsqueeze(1).float()
        out = sampler.run(points, self.predict).squeeze(1).double()
        linear = out[1:] - out[0]
        return out[0], linear.T @ (gamma**2 * COVARIANCE + sigma**2 * eye) @ linear


def relative(found: Tensor) -> Tensor:
    """The error of a covariance, in units of the deviations."""
    deviations = COVARIANCE.diagonal().sqrt()
    return (found - COVARIANCE).abs() / torch.outer(deviations, deviations)


@pytest.mark.parametrize('predicts_noise', [False, True], ids=['clean', 'noise'])
@pytest.mark.parametrize('schedule', SCHEDULES)
@pytest.mark.parametrize('name', ['ddim', 'euler', 'heun', 'dpm++'])
def test_the_exact_denoiser_gives_the_data_back(name: str, schedule: str, predicts_noise: bool):
    mean, covariance = Gaussian(schedule, predicts_noise).moments(name, 1000)
    torch.testing.assert_close(mean, MEAN, rtol=0, atol=2e-3)
    # Methods of first order are that far off after 1000 steps, and the next test sees that it halves with twice the steps.
    assert relative(covariance).max() < (0.02 if name in ('ddim', 'euler') else 8e-3)


@pytest.mark.parametrize(
    ('name', 'schedule', 'predicts_noise'),
    [('ddpm', schedule, noise) for schedule in SCHEDULES for noise in (False, True)]
    + [('euler-ancestral', 'linear_gamma_sq', noise) for noise in (False, True)],
)
def test_the_exact_denoiser_gives_the_data_back_from_drawn_noise(name: str, schedule: str, predicts_noise: bool):
    gaussian = Gaussian(schedule, predicts_noise)
    sampler = gaussian.sampler(name, 1000)
    found = (
        sampler.run(gaussian.noisy(sampler.start), gaussian.predict, [torch.Generator().manual_seed(0)])
        .squeeze(1)
        .double()
    )
    # Four standard errors of a mean and of a (co)variance of N values, and 2 % for the finite number of steps.
    assert ((found.mean(0) - MEAN).abs() < 4 * (COVARIANCE.diagonal() / N).sqrt() + 0.005).all()
    assert relative(torch.cov(found.T)).max() < 4 * (2 / N) ** 0.5 + 0.02


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_the_bias_of_ddim_halves_with_twice_the_steps(schedule: str):
    """As that of a method of first order."""
    gaussian = Gaussian(schedule, predicts_noise=True)
    errors = [(COVARIANCE - gaussian.moments('ddim', steps)[1]).diagonal() for steps in (100, 200, 400)]
    ratios = torch.stack([errors[0] / errors[1], errors[1] / errors[2]])
    assert ((ratios > 1.7) & (ratios < 2.3)).all(), ratios


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_a_better_sampler_needs_fewer_steps(schedule: str):
    gaussian = Gaussian(schedule, predicts_noise=False)
    errors = {name: relative(gaussian.moments(name, 50)[1]).max() for name in ('ddim', 'dpm++', 'heun')}
    assert errors['dpm++'] < errors['ddim'] / 1.3
    assert errors['heun'] < errors['ddim'] / 1.3


@pytest.mark.parametrize('name', ['ddpm', 'ddim', 'heun', 'dpm++'])
def test_a_mixture_keeps_its_weights(name: str):
    """Two narrow modes at -1 and +1, a quarter of the data in the first."""
    gamma, sigma = schedules.linear_gamma_sq(1000)
    modes, weights, width = torch.tensor([-1.0, 1.0]).double(), torch.tensor([0.25, 0.75]).double(), 0.1

    def predict(z: Tensor, t: int) -> Tensor:
        g, s = gamma[t], sigma[t]
        variance = (g * width) ** 2 + s**2
        z = z.double()
        share = (weights.log() - (z - g * modes) ** 2 / (2 * variance)).softmax(dim=-1)  # (n, 1, 2)
        means = modes + g * width**2 / variance * (z - g * modes)
        return (share * means).sum(dim=-1, keepdim=True)

    sampler = DiffusionSampler(gamma, sigma, name, 200)
    torch.manual_seed(0)
    n = 10_000
    found = sampler.run(torch.randn(n, 1, 1), predict, [torch.Generator().manual_seed(0)]).flatten()
    low = found < 0
    assert abs(low.double().mean() - 0.25) < 4 * (0.25 * 0.75 / n) ** 0.5 + 0.01
    assert torch.allclose(torch.stack([found[low].mean(), found[~low].mean()]).double(), modes, atol=0.02)


def test_ddim_with_all_of_the_noise_is_ddpm():
    """Song et al., "Denoising Diffusion Implicit Models", section 4.1: eta = 1."""
    gaussian = Gaussian('ddpm_linear', predicts_noise=True)
    samplers = [
        DiffusionSampler(gaussian.gamma, gaussian.sigma, name, 100, True, **options)
        for name, options in (('ddim', dict(eta=1.0)), ('ddpm', {}))
    ]
    z = gaussian.noisy(samplers[0].start)[:50]
    found = [sampler.run(z, gaussian.predict, [torch.Generator().manual_seed(3)]) for sampler in samplers]
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('steps', [7, 50])
def test_ddim_on_the_path_of_flow_is_diffusers_euler_sampler_of_flow_matching(steps: int):
    """Which steps along the velocity from noise to data, counted the other way."""
    gaussian = Gaussian('flow', predicts_noise=False)
    ours = gaussian.sampler('ddim', steps)
    theirs = pytest.importorskip('diffusers').FlowMatchEulerDiscreteScheduler()
    theirs.set_timesteps(sigmas=gaussian.sigma[ours.timesteps].flip(0).tolist())
    z = start = gaussian.noisy(ours.start)[:20]
    for position, t in zip(theirs.timesteps, ours.timesteps.flip(0).tolist(), strict=True):
        velocity = (gaussian.predict(z, t) - z) / gaussian.sigma[t]
        z = theirs.step(-velocity.float(), position, z).prev_sample
    torch.testing.assert_close(ours.run(start, gaussian.predict), z, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('name', ['ddpm', 'euler-ancestral'])
def test_noise_of_a_sample_is_its_own(name: str):
    gaussian = Gaussian('linear_sigma', predicts_noise=False)
    z = gaussian.noisy(999)[:5]

    def run(numbers: list[int]) -> Tensor:
        sampler = DiffusionSampler(gaussian.gamma, gaussian.sigma, name, 20)
        return sampler.run(z[numbers], gaussian.predict, [torch.Generator().manual_seed(i) for i in numbers])

    together = run([0, 1, 2, 3, 4])
    assert torch.equal(together[2:4], run([2, 3]))
    assert torch.equal(together[4:], run([4]))


def test_tools_offer_all_samplers_without_loading_them():
    assert set(options.SAMPLERS) == set(SAMPLERS)


def test_steps_are_spread_from_the_noisiest_level_down():
    gamma, sigma = schedules.ddpm_linear(1000)
    assert choose_timesteps(gamma, sigma, 4).tolist() == [249, 499, 749, 999]
    assert choose_timesteps(gamma, sigma, 1000).tolist() == list(range(1000))
    assert choose_timesteps(gamma, sigma, 3, start=299).tolist() == [99, 199, 299]


def test_levels_without_noise_or_without_signal_are_left_out():
    assert choose_timesteps(*schedules.linear_sigma(1000), 1000).tolist() == list(range(1, 1000))
    assert choose_timesteps(*schedules.linear_gamma_sq(1000), 1000).tolist() == list(range(999))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(steps=1001), 'steps=1001 is out of range: it must be an integer between 1 and 1000'),
        (dict(steps=0), 'DiffusionSampler.steps=0 is out of range'),
        (dict(name='plms'), "name='plms' is unknown: choose one of"),
        (dict(name='heun', eta=0.5), "eta=0.5 is an option of sampler 'ddim': 'heun' has none"),
        (dict(start=1000), 't=1000 is out of range: it must be an integer between 0 and 999'),
    ],
)
def test_wrong_options_are_one_line(options: dict, message: str):
    with pytest.raises(ConfigError, match=message.replace("'", '.').replace('[', '.')):
        DiffusionSampler(*schedules.ddpm_linear(1000), **options)


def test_a_single_level_cannot_be_sampled():
    with pytest.raises(ConfigError, match='a single level of noise has no way'):
        DiffusionSampler(*schedules.single_level(1000))
