# SPDX-License-Identifier: Apache-2.0
"""Each loss against a float64 loop over samples, tokens and values."""

import numpy as np
import pytest
import torch

from ldae.models import (
    CleanLatentHead,
    DecodedImageHead,
    GaussianNoiser,
    NoiseHead,
    OriginalImageHead,
    PatchPCATokenizer,
)
from ldae.models.layers import patchify
from ldae.utils import ConfigError

B, N, D, LATENT = 3, 4, 16, 5


@pytest.fixture(scope='module')
def setting() -> tuple:
    torch.manual_seed(0)
    tokenizer = PatchPCATokenizer(8, 4, 1, LATENT, full_basis=True)
    tokenizer.fit([torch.randn(200, 1, 8, 8).cumsum(2).cumsum(3)])
    images = torch.randn(B, 1, 8, 8)
    return tokenizer, images, GaussianNoiser('linear_sigma')(tokenizer.encode(images))


def loop(target: np.ndarray, pred: np.ndarray, weights: np.ndarray, lambdas: np.ndarray) -> float:
    """mean over images and tokens of lambda * sum_i w_i (target - pred)_i^2 / values."""
    total = 0.0
    for b in range(target.shape[0]):
        for n in range(target.shape[1]):
            squares = [weights[i] * (target[b, n, i] - pred[b, n, i]) ** 2 for i in range(target.shape[2])]
            total += lambdas[b] * sum(squares) / target.shape[2]
    return total / (target.shape[0] * target.shape[1])


def as_numpy(x: torch.Tensor) -> np.ndarray:
    return x.detach().double().numpy()


@pytest.mark.parametrize(('head', 'field'), [(NoiseHead(), 'noise'), (CleanLatentHead(), 'z0')])
def test_latent_losses(setting, head, field):
    tokenizer, images, sample = setting
    pred = torch.randn(B, N, LATENT)
    lambdas = as_numpy(sample.weight.flatten())
    expected = loop(as_numpy(getattr(sample, field)), as_numpy(pred), np.ones(LATENT), lambdas)
    assert head.loss(pred, sample, images, tokenizer)['loss'].item() == pytest.approx(expected, rel=1e-5)


def test_decoded_image_loss(setting):
    tokenizer, images, sample = setting
    pred = torch.randn(B, N, D)
    basis, scale = as_numpy(tokenizer.basis), as_numpy(tokenizer.scale)
    target = (as_numpy(sample.z0) * scale) @ basis + as_numpy(tokenizer.mean)
    expected = loop(target, as_numpy(pred), np.ones(D), as_numpy(sample.weight.flatten()))
    loss = DecodedImageHead().loss(pred, sample, images, tokenizer)['loss'].item()
    assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('tail_weight', [0.1, 0.0, 1.0])
def test_original_image_loss_equals_the_explicit_full_basis_product(setting, tail_weight):
    tokenizer, images, sample = setting
    pred = torch.randn(B, N, D)
    full = as_numpy(tokenizer.full_basis)
    target, weights = (as_numpy(patchify(images, 4)) @ full.T, np.where(np.arange(D) < LATENT, 1.0, tail_weight))
    expected = loop(target, as_numpy(pred) @ full.T, weights, as_numpy(sample.weight.flatten()))
    loss = OriginalImageHead(tail_weight).loss(pred, sample, images, tokenizer)['loss'].item()
    assert loss == pytest.approx(expected, rel=1e-4)


def test_gradient_of_the_folded_loss_equals_that_of_the_explicit_product(setting):
    tokenizer, images, sample = setting
    folded, explicit = (torch.randn(B, N, D, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    OriginalImageHead().loss(folded.requires_grad_(), sample, images, tokenizer)['loss'].backward()
    residual = (patchify(images, 4) - explicit.requires_grad_()) @ tokenizer.full_basis.T
    weights = torch.where(torch.arange(D) < LATENT, 1.0, 0.1)
    (sample.weight * weights * residual**2).mean().backward()
    torch.testing.assert_close(folded.grad, explicit.grad, atol=1e-6, rtol=1e-4)


def test_the_true_target_denoises_to_the_clean_image(setting):
    tokenizer, images, sample = setting
    projected = tokenizer.decode(sample.z0)
    for head, pred, expected in [
        (NoiseHead(), sample.noise, projected),
        (CleanLatentHead(), sample.z0, projected),
        (DecodedImageHead(), patchify(projected, 4), projected),
        (OriginalImageHead(), patchify(images, 4), images),
    ]:
        torch.testing.assert_close(head.denoise(pred, sample, tokenizer), expected, atol=1e-4, rtol=1e-4)


def test_the_true_target_has_no_loss(setting):
    tokenizer, images, sample = setting
    assert OriginalImageHead().loss(patchify(images, 4), sample, images, tokenizer)['loss'] == 0
    assert NoiseHead().loss(sample.noise, sample, images, tokenizer)['loss'] == 0


@pytest.mark.parametrize('value', [-0.1, 1.5, 'a'])
def test_a_tail_weight_out_of_range_is_refused(value):
    with pytest.raises(ConfigError, match=r'tail_weight(=.* is out of range| must be a number)'):
        OriginalImageHead(tail_weight=value)


def test_a_tokenizer_without_a_basis_is_refused():
    class Basisless(PatchPCATokenizer):
        basis = None

    with pytest.raises(ConfigError, match='needs an orthonormal basis.*set tail_weight=1'):
        OriginalImageHead().check(Basisless(8, 4, 1, LATENT))


def test_loss_keeps_full_precision_under_autocast(setting):
    tokenizer, images, sample = setting
    pred, head = torch.randn(B, N, D), OriginalImageHead()
    expected = head.loss(pred, sample, images, tokenizer)['loss']
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(head.loss(pred, sample, images, tokenizer)['loss'], expected)
