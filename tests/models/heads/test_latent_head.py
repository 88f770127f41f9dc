# SPDX-License-Identifier: Apache-2.0
"""Prediction and loss space: conversions, errors and weights against closed forms and loops in float64."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ldae.models import GaussianNoiser, LatentHead, NoiseHead, PatchPCATokenizer, PixelTokenizer
from ldae.models.heads.latent import min_snr_weight
from ldae.models.noisers import NoisySample
from ldae.utils import ConfigError

QUANTITIES = ('noise', 'clean', 'velocity')
PATHS = ('flow', 'linear_gamma_sq', 'ddpm_linear')
CELLS = list(itertools.product(QUANTITIES, QUANTITIES))
STEPS = [0, 20, 300, 700, 980, 999]
CLIP, B, N, D = 0.05, len(STEPS), 2, 5


def made(noiser: GaussianNoiser, z0: Tensor, noise: Tensor, steps: list[int]) -> NoisySample:
    return noiser(z0, torch.tensor(steps), noise=noise)


def head_of(noiser: GaussianNoiser, *args, **options) -> LatentHead:
    head = LatentHead(*args, **options)
    head.check_noiser(noiser)
    return head


@pytest.fixture(params=PATHS)
def setting(request) -> tuple[str, GaussianNoiser, NoisySample, Tensor]:
    torch.manual_seed(0)
    noiser = GaussianNoiser(request.param, weighting='uniform')
    return request.param, noiser, made(noiser, *torch.randn(2, B, N, D), STEPS), torch.randn(B, N, D)


def convert(y: float, z: float, g: float, s: float, source: str, to: str, path: str) -> float:
    """One value of a quantity from that of another, by the formula of each pair; what may be 0 is clipped where it divides."""
    over_s, over_g = 1 / max(s, CLIP), 1 / max(g, CLIP)
    straight = path == 'flow'
    formulas = {
        ('clean', 'noise'): (z - g * y) * over_s,
        ('noise', 'clean'): (z - s * y) * over_g,
        ('clean', 'velocity'): (y - z) * over_s if straight else (g * z - y) * over_s,
        ('noise', 'velocity'): (z - y) * over_g if straight else (y - s * z) * over_g,
        ('velocity', 'clean'): z + s * y if straight else g * z - s * y,
        ('velocity', 'noise'): z - g * y if straight else s * z + g * y,
    }
    return y if source == to else formulas[source, to]


def truth(x: float, e: float, g: float, s: float, path: str) -> dict[str, float]:
    return dict(clean=x, noise=e, velocity=x - e if path == 'flow' else g * e - s * x)


@pytest.mark.parametrize(('prediction', 'loss_space'), CELLS)
def test_the_error_of_each_cell_is_that_of_a_loop_over_values(prediction, loss_space, setting):
    path, noiser, sample, pred = setting
    found = head_of(noiser, prediction, loss_space).error(pred, sample, None, None)
    gammas, sigmas = ([float(x) for x in part.flatten().double()] for part in (sample.gamma, sample.sigma))
    for b, n in itertools.product(range(B), range(N)):
        g, s, total = gammas[b], sigmas[b], 0.0
        for i in range(D):
            x, e, y = (float(part[b, n, i].double()) for part in (sample.z0, sample.noise, pred))
            z, known = g * x + s * e, truth(x, e, g, s, path)
            # Both are converted alike, clip included, as JiT does.
            wanted = convert(known[prediction], z, g, s, prediction, loss_space, path)
            if min(g, s) > CLIP:
                assert wanted == pytest.approx(known[loss_space], rel=1e-5, abs=1e-5)  # the tables are float32
            total += (wanted - convert(y, z, g, s, prediction, loss_space, path)) ** 2
        assert float(found[b, n]) == pytest.approx(total / D, rel=2e-5)


@pytest.mark.parametrize('prediction', QUANTITIES)
def test_the_target_gives_the_clean_latent_back(prediction, setting):
    _, noiser, sample, _ = setting
    double = NoisySample(*(x.double() if x.is_floating_point() else x for x in sample))
    double = double._replace(z_t=double.gamma * double.z0 + double.sigma * double.noise)
    head = head_of(noiser, prediction)
    known = (double.gamma > CLIP).flatten()  # in float32 gamma^2 + sigma^2 = 1 holds to 1e-7
    found = head.clean(head.target(double), double)
    torch.testing.assert_close(found[known], double.z0[known], rtol=0, atol=1e-5)


@pytest.mark.parametrize('prediction', QUANTITIES)
@pytest.mark.parametrize('schedule', PATHS)
def test_the_velocity_is_the_derivative_of_the_path(schedule, prediction):
    """Of flow against t from noise to image; of a circle against its angle."""
    noiser = GaussianNoiser(schedule)
    sample = made(noiser, *torch.randn(2, 1, N, D), [500])
    gamma, sigma = float(sample.gamma), float(sample.sigma)
    path = (lambda u: (1 - u, u)) if schedule == 'flow' else lambda u: (math.cos(u), math.sin(u))
    u, step = sigma if schedule == 'flow' else math.atan2(sigma, gamma), 1e-4
    (g1, s1), (g0, s0) = path(u + step), path(u - step)
    slope = ((g1 - g0) * sample.z0.double() + (s1 - s0) * sample.noise.double()) / (2 * step)
    found = head_of(noiser, 'velocity').target(sample).double()
    torch.testing.assert_close(found, -slope if schedule == 'flow' else slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('prediction', 'loss_space'), CELLS)
@pytest.mark.parametrize('schedule', PATHS)
@pytest.mark.parametrize('t', [150, 400, 650])
def test_the_exact_denoiser_of_gaussian_data_has_the_least_loss(prediction, loss_space, schedule, t):
    """Of all affine ones. Points whose first two moments are exactly those of the distribution make losses exact."""
    torch.manual_seed(0)
    noiser = GaussianNoiser(schedule, weighting='uniform')
    points = torch.randn(60, 4, dtype=torch.float64)
    points = points - points.mean(0)
    white = points @ torch.linalg.inv(torch.linalg.cholesky(points.T @ points / len(points))).T
    factor, mean = torch.tensor([[1.2, 0.0], [0.7, 0.4]], dtype=torch.float64), torch.tensor([0.5, -0.3]).double()
    z0, noise, covariance = mean + white[:, :2] @ factor.T, white[:, 2:], factor @ factor.T
    sample = made(noiser, z0.unsqueeze(1), noise.unsqueeze(1), [t] * 60)
    g, s = float(noiser.gamma[t].double()), float(noiser.sigma[t].double())
    gain = g * covariance @ torch.linalg.inv(g**2 * covariance + s**2 * torch.eye(2))
    best = mean + (sample.z_t.squeeze(1) - g * mean) @ gain.T
    left = float((covariance - g * gain @ covariance).trace()) / 2  # of the clean latent, per value
    least = left * dict(clean=1, noise=(g / s) ** 2, velocity=1 / s**2)[loss_space]

    head = head_of(noiser, prediction, loss_space)
    pred = head.target(
        sample._replace(z0=best.unsqueeze(1), noise=((sample.z_t.squeeze(1) - g * best) / s).unsqueeze(1))
    )
    loss = lambda pred: float(head.sample_loss(pred, sample, None, None).double().mean())  # noqa: E731
    assert loss(pred) == pytest.approx(least, rel=1e-4)
    z = sample.z_t.squeeze(1)
    for _ in range(5):
        change = (z @ torch.randn(2, 2).double() + torch.randn(2).double()).unsqueeze(1)
        raised, lowered = (loss(pred + sign * 0.1 * change) for sign in (1, -1))
        assert min(raised, lowered) > least
        assert raised == pytest.approx(lowered, rel=1e-3)  # no slope


@pytest.mark.parametrize('limit', [0.5, 5.0])
@pytest.mark.parametrize('schedule', PATHS)
def test_min_snr_is_the_papers_formula_and_code(schedule, limit):
    """Section 3.4 and, for velocity, m / (SNR + 1) where the variance is preserved."""
    noiser = GaussianNoiser(schedule)
    for t in range(0, 980, 37):
        g, s = float(noiser.gamma[t].double()), float(noiser.sigma[t].double())
        snr = (g / s) ** 2
        m = min(snr, limit)
        expected = dict(clean=m, noise=m / snr, velocity=m * s**2 if schedule == 'flow' else m / (snr + 1))
        for space, weight in expected.items():
            found = min_snr_weight(space, noiser.gamma[t], noiser.sigma[t], limit)
            assert float(found) == pytest.approx(weight, rel=1e-4)
    for space in QUANTITIES:
        assert min_snr_weight(space, torch.tensor(0.0), torch.tensor(1.0)) == 1
        assert min_snr_weight(space, torch.tensor(1.0), torch.tensor(0.0)).isfinite()


def test_min_snr_agrees_with_diffusers():
    """Their training script's, from compute_snr."""
    training_utils = pytest.importorskip('diffusers.training_utils')
    from diffusers import DDPMScheduler

    t = torch.arange(0, 1000, 50)
    snr = training_utils.compute_snr(DDPMScheduler(1000, beta_start=1e-4, beta_end=0.02, beta_schedule='linear'), t)
    m = torch.minimum(snr, torch.tensor(5.0))
    noiser = GaussianNoiser('ddpm_linear')
    for space, expected in dict(noise=m / snr, velocity=m / (snr + 1)).items():
        torch.testing.assert_close(
            min_snr_weight(space, noiser.gamma[t], noiser.sigma[t]), expected, rtol=1e-3, atol=1e-5
        )


@pytest.mark.parametrize('prediction', QUANTITIES)
@pytest.mark.parametrize('schedule', PATHS)
def test_min_snr_makes_all_loss_spaces_one(schedule, prediction):
    noiser = GaussianNoiser(schedule, weighting='uniform')
    sample, pred = made(noiser, *torch.randn(2, 3, N, D), [200, 400, 650]), torch.randn(3, N, D)
    errors = [head_of(noiser, prediction, space, min_snr=5.0).error(pred, sample, None, None) for space in QUANTITIES]
    for error in errors[1:]:
        torch.testing.assert_close(error, errors[0], rtol=1e-4, atol=1e-6)


def test_where_hardly_any_signal_is_left_an_error_of_the_noise_is_not_multiplied_without_bound():
    noiser = GaussianNoiser('flow')
    sample = made(noiser, *torch.randn(2, 2, N, D), [998, 999])  # gamma = 0.001 and 0
    for head, least in ((LatentHead('noise'), CLIP), (NoiseHead(), 1e-3)):
        moved = head.clean(sample.noise + 0.01, sample) - head.clean(sample.noise, sample)
        torch.testing.assert_close(moved.abs(), 0.01 * sample.sigma.expand_as(moved) / least, rtol=1e-2, atol=1e-4)
    assert NoiseHead().to_latents(sample.noise, sample, None) is sample.noise


class TestAsymFlow:
    def test_rank_0_is_clean_prediction_and_rank_d_velocity_prediction(self, setting):
        _, noiser, sample, pred = setting
        for rank, prediction in ((0, 'clean'), (D, 'velocity')):
            mixed, plain = head_of(noiser, 'velocity', rank=rank), head_of(noiser, prediction, 'velocity')
            for name, args in dict(error=(None, None), clean=()).items():
                found, expected = (getattr(head, name)(pred, sample, *args) for head in (mixed, plain))
                torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize('rank', [1, 3])
    def test_between_it_is_the_papers_formula_with_a_projection(self, rank):
        """v^ = P a + (I - P)(a - z)/sigma, x^ = P (z + sigma a) + (I - P) a, for targets x - P e, in any orthonormal basis."""
        torch.manual_seed(0)
        noiser = GaussianNoiser('flow', weighting='uniform')
        sample, a = made(noiser, *torch.randn(2, 4, N, D), [20, 100, 500, 900]), torch.randn(4, N, D)
        turn = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64)).Q  # pixels = latents @ turn
        x, e, z, out = (part.double() @ turn for part in (sample.z0, sample.noise, sample.z_t, a))
        project = turn[:rank].T @ turn[:rank]
        rest, s = torch.eye(D, dtype=torch.float64) - project, sample.sigma.double()
        velocity = out @ project + (out - z) @ rest / s
        clipped = (s / s.clamp(min=CLIP)) ** 2
        # Theirs weighs the subspace down as well below the clip, where ours goes on.
        squares = ((x - e - velocity) @ project).square() + clipped * ((x - e - velocity) @ rest).square()
        head = head_of(noiser, 'velocity', rank=rank)
        torch.testing.assert_close(head.error(a, sample, None, None).double(), squares.mean(-1), rtol=1e-4, atol=1e-5)
        clean = (z + s * out) @ project + out @ rest
        torch.testing.assert_close(head.clean(a, sample).double() @ turn, clean, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(head.target(sample).double() @ turn, x - e @ project, rtol=1e-5, atol=1e-5)

    def test_of_the_noise_it_gives_the_clean_latent_too(self):
        noiser = GaussianNoiser('linear_sigma')
        sample = made(noiser, *torch.randn(2, 2, N, D), [100, 900])
        head = head_of(noiser, 'noise', rank=2)
        found = head.to_latents(head.target(sample), sample, None)
        torch.testing.assert_close(found, sample.z0, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(prediction='score'), "LatentHead.prediction='score' is unknown"),
        (dict(loss_space='image'), "LatentHead.loss_space='image' is unknown"),
        (dict(clip=0.0), 'LatentHead.clip=0.0 is out of range'),
        (dict(rank=-1), 'LatentHead.rank=-1 is out of range'),
        (dict(min_snr=0.0), 'LatentHead.min_snr=0.0 is out of range'),
        (dict(rank=1.5), 'LatentHead.rank must be an integer or None, got 1.5'),
    ],
)
def test_wrong_options_are_one_line(options, message):
    with pytest.raises(ConfigError, match=message):
        LatentHead(**options)


def test_a_rank_needs_as_many_dimensions_and_a_basis():
    pca = PatchPCATokenizer(8, 4, 1, 5)
    LatentHead('velocity', rank=5).check(pca)
    with pytest.raises(ConfigError, match='LatentHead.rank=6 is out of range: it must be an integer between 0 and 5'):
        LatentHead('velocity', rank=6).check(pca)
    with pytest.raises(ConfigError, match='takes the first dimensions of a basis, which PixelTokenizer does not have'):
        LatentHead('velocity', rank=2).check(PixelTokenizer(8, 4, 1, resized=4))


@pytest.mark.parametrize('schedule', ['linear_sigma', 'single_level'])
def test_a_schedule_without_a_velocity_is_refused(schedule):
    noiser = GaussianNoiser(schedule)
    for options in (dict(prediction='velocity'), dict(prediction='clean', loss_space='velocity')):
        with pytest.raises(
            ConfigError, match=r"the velocity of this noise schedule is not defined.*choose 'noise' or 'clean'"
        ):
            head_of(noiser, **options)
    sample = made(noiser, *torch.randn(2, 2, N, D), [0, 999])
    error = head_of(noiser, 'clean', 'noise').error(torch.zeros(2, N, D), sample, None, None)
    expected = sample.z0.square().mean(-1) / sample.sigma.flatten()[:, None].clamp(min=CLIP) ** 2
    np.testing.assert_allclose(error, expected, rtol=1e-5)
