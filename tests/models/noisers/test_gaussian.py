# SPDX-License-Identifier: Apache-2.0
import math

import pytest
import torch

from ldae.models import GaussianNoiser, TokenNoiser
from ldae.utils import ConfigError
from ldae.utils.row_streams import integers, row_streams, standard_normal

WAYS = pytest.mark.parametrize('draw_by', ['batch', 'row'])
SCHEDULES = ['ddpm_linear', 'linear_gamma_sq', 'linear_sigma', 'flow', 'single_level']


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_a_sample_is_signal_plus_noise_at_its_own_level(schedule):
    noiser, z0 = GaussianNoiser(schedule), torch.randn(6, 4, 3)
    sample = noiser(z0, generator=torch.Generator().manual_seed(0))
    for i in range(6):
        t = int(sample.t[i])
        expected = float(noiser.gamma[t]) * z0[i] + float(noiser.sigma[t]) * sample.noise[i]
        torch.testing.assert_close(sample.z_t[i], expected, atol=1e-6, rtol=1e-5)
        assert sample.weight[i] == noiser.weight[t]


@pytest.mark.parametrize('schedule', SCHEDULES[:2])
def test_variance_preserving_schedules_keep_unit_variance(schedule):
    z0 = torch.randn(2000, 4, 8, generator=torch.Generator().manual_seed(1))
    sample = GaussianNoiser(schedule)(z0, generator=torch.Generator().manual_seed(0))
    assert sample.z_t.var().item() == pytest.approx(1, abs=0.02)


@WAYS
def test_time_steps_are_uniform_over_all_of_them(draw_by):
    sample = GaussianNoiser(num_timesteps=10, draw_by=draw_by)(
        torch.zeros(20000, 1, 1), generator=torch.Generator().manual_seed(0)
    )
    counts = torch.bincount(sample.t, minlength=10)
    chi_square = ((counts - 2000) ** 2 / 2000).sum()
    assert chi_square < 27.9  # 99.9% quantile for 9 degrees of freedom


@WAYS
def test_logit_normal_steps_have_the_distribution_of_their_closed_form(draw_by):
    """JiT's: the share of the image is sigmoid(-0.8 + 0.8 n)."""
    noiser = GaussianNoiser('flow', draw_by=draw_by, logit_normal=(-0.8, 0.8))
    t = noiser(torch.zeros(20000, 1, 1), generator=torch.Generator().manual_seed(0)).t
    for share in (0.2, 0.5, 0.7, 0.9):
        noise_below = torch.special.ndtr(torch.tensor((math.log(share / (1 - share)) - 0.8) / 0.8)).item()
        assert (t < 1000 * share).float().mean().item() == pytest.approx(noise_below, abs=0.012)
    assert noiser.gamma[t.median()].item() == pytest.approx(1 / (1 + math.exp(0.8)), abs=0.01)


def test_logit_normal_steps_stay_in_the_table():
    noiser = GaussianNoiser(num_timesteps=10, logit_normal=[0.0, 50.0])
    t = noiser(torch.zeros(500, 1, 1), generator=torch.Generator().manual_seed(0)).t
    assert (t.min(), t.max()) == (0, 9)


@pytest.mark.parametrize('value', [(0.0, 0.0), (0.0,), 'jit', (0.0, 'wide')])
def test_a_wrong_distribution_of_steps_is_one_line(value):
    with pytest.raises(ConfigError, match=r'GaussianNoiser.logit_normal(\[1\]=0.0 is out of range| must be)'):
        GaussianNoiser(logit_normal=value)


@WAYS
def test_noise_is_standard_normal(draw_by):
    noise = GaussianNoiser(draw_by=draw_by)(
        torch.zeros(100, 50, 20), generator=torch.Generator().manual_seed(0)
    ).noise.flatten()
    assert noise.mean().abs() < 0.01
    assert noise.std().item() == pytest.approx(1, abs=0.01)
    assert (noise.pow(4).mean() - 3).abs() < 0.1


@WAYS
def test_equal_generators_give_equal_noise_and_the_default_stream_is_the_global_one(draw_by):
    noiser, z0 = GaussianNoiser(draw_by=draw_by), torch.randn(3, 4, 2)
    a, b = (noiser(z0, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(a.z_t, b.z_t)
    torch.manual_seed(7)
    first = noiser(z0)
    torch.manual_seed(7)
    assert torch.equal(noiser(z0).z_t, first.z_t)


@WAYS
@pytest.mark.parametrize(
    ('kind', 'options'),
    [
        (GaussianNoiser, dict()),
        (TokenNoiser, dict(share=0.5)),
        (TokenNoiser, dict(share=0.5, rest='drawn')),
        (TokenNoiser, dict(share=1.0, level='each')),
    ],
)
def test_ranks_draw_disjoint_shares_of_the_global_batch(monkeypatch, draw_by, kind, options):
    noiser, whole = kind(draw_by=draw_by, **options), torch.randn(6, 4, 2)
    torch.manual_seed(0)
    expected = noiser(whole)
    monkeypatch.setattr('mmengine.dist.get_world_size', lambda: 2)
    for rank in range(2):
        monkeypatch.setattr('mmengine.dist.get_rank', lambda rank=rank: rank)
        torch.manual_seed(0)
        part = noiser(whole[rank::2])
        assert torch.equal(part.t, expected.t[rank::2])
        assert torch.equal(part.z_t, expected.z_t[rank::2])


def test_a_rank_among_a_million_draws_its_own_rows_only(monkeypatch):
    noiser, z0 = GaussianNoiser(draw_by='row'), torch.zeros(4, 196, 16)
    monkeypatch.setattr('mmengine.dist.get_world_size', lambda: 2**20)  # 13 TB of noise in all
    monkeypatch.setattr('mmengine.dist.get_rank', lambda: 77)
    torch.manual_seed(0)
    sample = noiser(z0)
    torch.manual_seed(0)
    for drawn, make in (
        (sample.t, lambda s: integers(s, 1000)),
        (sample.noise, lambda s: standard_normal(s, (196, 16))),
    ):
        rows = 77 + 2**20 * torch.arange(4)
        assert torch.equal(drawn, make(row_streams(torch.randint(2**63 - 1, ()), rows)))


@WAYS
def test_ranks_that_are_not_to_agree_draw_for_their_own_batch(monkeypatch, draw_by):
    noiser, z0 = GaussianNoiser(rank_invariant=False, draw_by=draw_by), torch.zeros(4, 2, 2)
    torch.manual_seed(0)
    alone = noiser(z0)
    monkeypatch.setattr('mmengine.dist.get_world_size', lambda: 2)
    monkeypatch.setattr('mmengine.dist.get_rank', lambda: 1)
    torch.manual_seed(0)
    assert torch.equal(noiser(z0).noise, alone.noise)


def test_schedule_options_go_through_a_dict():
    noiser = GaussianNoiser(dict(type='linear_sigma', max_sigma=3.0), num_timesteps=7)
    assert noiser.sigma[-1] == 3
    assert len(noiser.gamma) == 7


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(schedule='linear_sigm'), "did you mean 'linear_sigma'"),
        (dict(num_timesteps=0), 'num_timesteps=0 is out of range'),
        (dict(weighting='snrs'), "did you mean 'snr'"),
    ],
)
def test_wrong_options_are_one_clear_line(options, message):
    with pytest.raises(ConfigError, match=message):
        GaussianNoiser(**options)


def test_a_schedule_with_options_passes_the_checks_of_a_config():
    from ldae.config import load_config
    from ldae.config.components import components_of

    cfg = load_config('ldae::ldae/vit-b_pca.py')
    cfg.model.noiser.schedule = dict(type='linear_sigma', max_sigma=1.0)
    assert list(components_of(cfg))
