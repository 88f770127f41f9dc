# SPDX-License-Identifier: Apache-2.0
"""The closed form is what a regression on many draws finds, and no denoiser is below it."""

import pytest
import torch
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from ldae.evaluation.gaussian_bound import denoising_bound, latent_losses, linear_errors, moments, target_of
from ldae.models.heads import CleanLatentHead, DenoisingHead, NoiseHead
from ldae.models.layers import patchify
from ldae.registry import MODELS
from ldae.utils import ConfigError

NUM, SIZE = 40_000, 8
ARCH = dict(embed_dims=8, num_layers=1, num_heads=2, feedforward_channels=16)
HEADS = {
    'noise': dict(type='NoiseHead'),
    'clean': dict(type='CleanLatentHead'),
    'velocity': dict(type='LatentHead', prediction='velocity'),
    'clean, scored as velocity': dict(type='LatentHead', prediction='clean', loss_space='velocity'),
    'velocity below a rank': dict(type='LatentHead', prediction='velocity', rank=1),
    'noise, min-SNR': dict(type='LatentHead', prediction='noise', min_snr=5.0),
    'decoded': dict(type='DecodedImageHead'),
    'original': dict(type='OriginalImageHead', tail_weight=0.1),
}
STEPS = (0, 200, 700)


def gaussian_images(seed: int, num: int = NUM) -> Tensor:
    """Smooth normal images of a mean that differs from pixel to pixel."""
    mixing = torch.randn(SIZE * SIZE, SIZE * SIZE, generator=torch.Generator().manual_seed(7)) * 0.98 ** torch.arange(
        64
    )
    normal = torch.randn(num, SIZE * SIZE, generator=torch.Generator().manual_seed(seed))
    return (normal @ mixing.t() / 5 + torch.linspace(-1, 1, SIZE * SIZE)).view(num, 1, SIZE, SIZE)


def tiny(head: str) -> nn.Module:
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    cfg = dict(
        type='ldae.LDAE',
        data_preprocessor=dict(mean=[0.0], std=[1.0]),
        tokenizer=dict(type='ldae.PatchPCATokenizer', img_size=SIZE, patch_size=4, in_channels=1, latent_dim=3),
        noiser=dict(type='ldae.GaussianNoiser', schedule='linear_gamma_sq'),
        backbone=dict(type='ldae.LDAEViT', arch=ARCH),
        head=dict(HEADS[head], type=f'ldae.{HEADS[head]["type"]}'),
    )
    model = MODELS.build(cfg).eval()
    model.tokenizer.fit([gaussian_images(0, 4000)])
    return model


class Regression(nn.Module):
    """The affine map from noisy latents to the target of a head that least squares find, step by step."""

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.maps, z0 = {}, model.tokenizer.encode(images)
        for step in STEPS:
            sample = model.noiser(z0, torch.full((len(z0),), step))
            if model.head.space == 'latent':
                target = model.head.target(sample)
            else:
                decoded = type(model.head).__name__ == 'DecodedImageHead'
                target = patchify(model.tokenizer.decode(z0) if decoded else images, 4)
            self.maps[step] = torch.linalg.lstsq(rows(sample.z_t), target.flatten(1).double()).solution

    def predict(self, z_t: Tensor, t: Tensor, labels: None = None) -> Tensor:
        return (rows(z_t) @ self.maps[int(t[0])]).unflatten(1, (4, -1)).float()


def rows(z: Tensor) -> Tensor:
    return torch.cat([z.flatten(1), torch.ones(len(z), 1)], dim=1).double()


@pytest.mark.parametrize('head', HEADS)
def test_the_closed_form_is_what_a_regression_of_each_target_reaches(head, monkeypatch):
    model = tiny(head)
    train, test = gaussian_images(1), gaussian_images(2)
    monkeypatch.setattr(model, '_predict_target', Regression(model, train).predict)
    found, whole = denoising_bound(model, lambda: train.split(9999), lambda: test.split(9999), STEPS, NUM)
    assert whole
    for row in found:
        assert row.model == pytest.approx(row.linear, rel=0.02)
        assert row.bound == pytest.approx(row.linear, rel=0.02)
        assert row.bound < row.mean


@pytest.mark.parametrize('head', HEADS)
def test_no_network_is_below_the_bound(head):
    model, images = tiny(head), gaussian_images(3, 500)
    for _ in range(5):
        for param in model.parameters():
            nn.init.normal_(param, std=0.3)
        found, _ = denoising_bound(model, lambda: [gaussian_images(1)], lambda: [images], STEPS, NUM)
        assert all(row.model > row.bound * 0.95 for row in found)


def test_one_number_is_wiener_s_filter():
    """``gamma^2 lambda / (gamma^2 lambda + sigma^2)`` of the noise remains, ``lambda sigma^2 / (...)`` of a clean number."""
    z = torch.randn(1000, 1, dtype=torch.float64) * 2 + 1
    one, variance = moments([(z, z)]), float(z.var(unbiased=False))
    gamma, sigma = torch.tensor([1.0, 0.6, 0.0]), torch.tensor([0.5, 0.8, 1.0])
    total = gamma**2 * variance + sigma**2
    errors = linear_errors(one, one, gamma, sigma)
    for head, expected in (
        (CleanLatentHead(), variance * sigma**2 / total),
        (NoiseHead(), gamma**2 * variance / total),
    ):
        found = latent_losses(head, errors, gamma, sigma, 1)
        torch.testing.assert_close(found, expected.double(), rtol=1e-6, atol=1e-9)


def test_moments_about_other_means_are_those_of_the_shifted_rows():
    y, z = torch.randn(50, 3).double() + 2, torch.randn(50, 2).double()
    other = moments([(y[:20], z[:20])])
    found = moments([(y[20:40], z[20:40]), (y[40:], z[40:])], about=other)
    dy, dz = y[20:] - y[:20].mean(0), z[20:] - z[:20].mean(0)
    torch.testing.assert_close(found.latents, dz.t() @ dz / 30)
    torch.testing.assert_close(found.cross, dy.t() @ dz / 30)
    torch.testing.assert_close(found.target_variance, dy.square().mean(0))


def test_of_few_images_each_token_is_denoised_by_itself():
    model = tiny('clean')
    few = gaussian_images(1, 40)
    _, whole = denoising_bound(model, lambda: [few], lambda: [few], STEPS, len(few))
    assert not whole


def test_a_head_of_ones_own_has_no_bound():
    class Own(DenoisingHead):
        error = denoise = None

    with pytest.raises(ConfigError, match='no bound is known for the target of Own'):
        target_of(Own(), torch.zeros(1, 1, 8, 8), torch.zeros(1, 4, 3), None)
