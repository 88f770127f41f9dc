# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from ldae.models import GaussianNoiser, TokenNoiser
from ldae.utils import ConfigError

WAYS = pytest.mark.parametrize('draw_by', ['batch', 'row'])


def seeded(noiser: GaussianNoiser, z0: torch.Tensor, seed: int = 0):
    return noiser(z0, generator=torch.Generator().manual_seed(seed))


@WAYS
@pytest.mark.parametrize('share', [0.25, 0.5, 0.7, 0.01, 0.99])
def test_an_exact_share_has_the_level_and_all_places_equally_often(draw_by, share):
    sample = seeded(TokenNoiser(share, level=900, rest=5, draw_by=draw_by), torch.zeros(4000, 16, 1))
    noised = sample.t == 900
    count = max(1, round(16 * share))
    assert torch.equal(noised, sample.t != 5)
    assert (noised.sum(1) == count).all()
    expected = 4000 * count / 16
    assert ((noised.sum(0) - expected) ** 2 / expected).sum() <= 37.7  # chi-square, 15 degrees of freedom, 99.9%


@WAYS
def test_two_levels_are_drawn_apart_and_each_is_uniform(draw_by):
    sample = seeded(TokenNoiser(0.25, rest='drawn', num_timesteps=10, draw_by=draw_by), torch.zeros(20000, 8, 1))
    # The level of two of eight tokens is the one that fewer have.
    low, high = sample.t.min(1).values, sample.t.max(1).values
    is_low = (sample.t == low[:, None]).sum(1) == 2
    ours, others = torch.where(is_low, low, high), torch.where(is_low, high, low)
    assert set((sample.t == low[:, None]).sum(1).tolist()) == {2, 6, 8}
    table = torch.bincount(ours * 10 + others, minlength=100)
    assert ((table - 200) ** 2 / 200).sum() < 148.2  # 99 degrees of freedom, 99.9%: uniform, and independent


@WAYS
def test_a_level_for_each_token_is_uniform_and_independent_of_its_neighbour(draw_by):
    t = seeded(TokenNoiser(1.0, level='each', num_timesteps=10, draw_by=draw_by), torch.zeros(5000, 6, 1)).t
    table = torch.bincount((t[:, :-1] * 10 + t[:, 1:]).flatten(), minlength=100)
    assert t.shape == (5000, 6)
    assert ((table - 250) ** 2 / 250).sum() < 148.2


@WAYS
def test_logit_normal_levels_hold_for_each_token(draw_by):
    t = seeded(TokenNoiser(1.0, level='each', logit_normal=(-0.8, 0.8), draw_by=draw_by), torch.zeros(2000, 9, 1)).t
    assert (t.float().median() / 1000).item() == pytest.approx(1 / (1 + 2.718281828**-0.8), abs=0.01)


@pytest.mark.parametrize('schedule', ['linear_sigma', 'flow'])
def test_a_token_is_signal_plus_noise_at_its_own_level(schedule):
    noiser, z0 = TokenNoiser(0.5, rest='drawn', schedule=schedule), torch.randn(3, 6, 2)
    sample = seeded(noiser, z0)
    assert sample.gamma.shape == sample.weight.shape == (3, 6, 1)
    for i in range(3):
        for j in range(6):
            t = int(sample.t[i, j])
            expected = noiser.gamma[t] * z0[i, j] + noiser.sigma[t] * sample.noise[i, j]
            torch.testing.assert_close(sample.z_t[i, j], expected)
            assert sample.weight[i, j] == noiser.weight[t]


@WAYS
@pytest.mark.parametrize('options', [dict(), dict(logit_normal=(-0.8, 0.8))])
def test_all_tokens_at_one_drawn_level_are_the_parents_sample(draw_by, options):
    z0 = torch.randn(5, 6, 2)
    ours = seeded(TokenNoiser(1.0, loss_on='noised', draw_by=draw_by, **options), z0)
    assert all(map(torch.equal, ours, seeded(GaussianNoiser(draw_by=draw_by, **options), z0)))


@WAYS
def test_evaluation_and_given_levels_are_the_parents(draw_by):
    z0, images = torch.randn(4, 6, 2), torch.randn(4, 1, 8, 8)
    noiser, parent, t = TokenNoiser(draw_by=draw_by), GaussianNoiser(draw_by=draw_by), torch.tensor([0, 5, 9, 999])
    same = lambda a, b: all(map(torch.equal, a, b))  # noqa: E731
    given = [one(z0, t, torch.Generator().manual_seed(0)) for one in (noiser, parent)]
    assert same(*given)
    assert torch.equal(noiser.at_level(z0, 7, images), parent.at_level(z0, 7, images))
    assert same(seeded(noiser.eval(), z0), seeded(parent.eval(), z0))


def test_the_loss_of_the_noised_tokens_is_their_mean():
    sample = seeded(TokenNoiser(0.25, level=500, loss_on='noised', weighting='uniform'), torch.zeros(3, 8, 1))
    error, noised = torch.rand(3, 8), sample.t == 500
    torch.testing.assert_close((sample.weight[..., 0] * error).mean(1), (error * noised).sum(1) / 2)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(share=0), 'TokenNoiser.share=0 is out of range'),
        (dict(share=1.5), 'TokenNoiser.share=1.5 is out of range'),
        (dict(level='all'), "TokenNoiser.level='all'"),
        (dict(level=1000), 'TokenNoiser.level=1000 is out of range'),
        (dict(level=0.5), 'TokenNoiser.level must be an integer or a string'),
        (dict(rest='each'), "TokenNoiser.rest='each'"),
        (dict(rest=-1), 'TokenNoiser.rest=-1 is out of range'),
        (dict(loss_on='clean'), "TokenNoiser.loss_on='clean'"),
        (dict(weighting='snrs'), "did you mean 'snr'"),
    ],
)
def test_wrong_options_are_one_clear_line(options, message):
    with pytest.raises(ConfigError, match=message) as error:
        TokenNoiser(**options)
    assert '\n' not in str(error.value)
