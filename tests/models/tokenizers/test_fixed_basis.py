# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch.nn import functional as F

from ldae.datasets import IDXDataset
from ldae.models import DCTTokenizer, PatchPCATokenizer, RandomProjectionTokenizer
from ldae.models.layers import patchify
from ldae.models.tokenizers.base import save_tokenizer
from ldae.models.tokenizers.fixed_basis import zigzag
from ldae.utils import ConfigError

KINDS = [DCTTokenizer, RandomProjectionTokenizer]


@pytest.fixture(scope='module')
def grey() -> torch.Tensor:
    """Real images, (300, 1, 28, 28), about unit variance."""
    return IDXDataset(split='test').images[:300].float() / 90 - 0.8


@pytest.fixture(scope='module')
def colour(grey) -> torch.Tensor:
    """(100, 3, 28, 28)."""
    return torch.stack([grey[:100, 0], grey[100:200, 0], grey[200:, 0]], dim=1)


def fitted(kind, images, **options):
    tokenizer = kind(**dict(dict(img_size=28, patch_size=7, in_channels=1, latent_dim=8), **options))
    tokenizer.fit(images.split(64))
    return tokenizer


def test_zigzag_is_that_of_jpeg():
    assert zigzag(4)[:7] == [(0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (0, 2), (0, 3)]
    assert sorted(zigzag(4)) == [(u, v) for u in range(4) for v in range(4)]


@pytest.mark.parametrize('d', [1, 4, 20, 147])
def test_dct_latents_are_scipys_lowest_coefficients(colour, d):
    tokenizer = DCTTokenizer(28, 7, 3, d, latent_norm='none')
    patches = patchify(colour[:4], 7).double().numpy().reshape(4, 16, 3, 7, 7)
    coefficients = dctn(patches, axes=(-2, -1), norm='ortho')
    expected = np.stack([coefficients[..., c, u, v] for u, v in zigzag(7) for c in range(3)], axis=-1)[..., :d]
    np.testing.assert_allclose(tokenizer.encode(colour[:4]), expected, atol=2e-5)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('shape', [(28, 7, 1, 5), (32, 8, 3, 32), (32, 8, 3, 192), (256, 16, 3, 32)])
def test_rows_are_orthonormal(kind, shape):
    basis = kind(*shape).basis.double()
    torch.testing.assert_close(basis @ basis.T, torch.eye(shape[-1]).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('norm', ['global', 'whiten', 'none'])
def test_reconstruction_is_the_orthogonal_projection_about_the_mean(kind, norm, colour):
    tokenizer = kind(28, 7, 3, 20, latent_norm=norm)
    if tokenizer.needs_fit:
        tokenizer.fit([colour])
    patches = patchify(colour, 7).double().numpy()
    mean = 0 if norm == 'none' else patches.reshape(-1, 147).mean(axis=0)
    rows = tokenizer.basis.double().numpy()
    expected = (patches - mean) @ rows.T @ rows + mean
    found = patchify(tokenizer.decode(tokenizer.encode(colour)), 7)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    error = np.square(patches - found.double().numpy()).sum()
    total, kept = np.square(patches - mean).sum(), np.square((patches - mean) @ rows.T).sum()
    assert error == pytest.approx(total - kept, rel=1e-5)
    if norm != 'none':
        assert tokenizer.kept_variance == pytest.approx(kept / total, rel=1e-3)


@pytest.mark.parametrize('kind', KINDS)
def test_latents_have_unit_variance(kind, grey):
    latents = fitted(kind, grey).encode(grey).flatten(0, 1).double()
    assert latents.mean(dim=0).abs().max() < 1e-3
    assert latents.square().mean() == pytest.approx(1, abs=1e-3)
    white = fitted(kind, grey, latent_norm='whiten').encode(grey).flatten(0, 1).double()
    torch.testing.assert_close(white.var(dim=0), torch.ones(8).double(), atol=1e-3, rtol=0)


def test_pca_keeps_more_than_dct_and_dct_more_than_random_directions(grey):
    pca, dct, random = (fitted(kind, grey) for kind in (PatchPCATokenizer, *KINDS))
    errors = [F.mse_loss(t.decode(t.encode(grey)), grey) for t in (pca, dct, random)]
    assert errors[0] < errors[1] < errors[2]


@pytest.mark.parametrize('kind', KINDS)
def test_state_travels_in_a_file(kind, grey, tmp_path):
    tokenizer = fitted(kind, grey)
    assert not list(tokenizer.parameters())
    save_tokenizer(tokenizer, tmp_path / 't.pth')
    copy = kind(28, 7, 1, 8, checkpoint=str(tmp_path / 't.pth'))
    assert torch.equal(copy.encode(grey[:2]), tokenizer.encode(grey[:2]))
    with pytest.raises(ConfigError, match=f'holds a {kind.__name__}, the config asks for a PatchPCATokenizer'):
        PatchPCATokenizer(28, 7, 1, 8, checkpoint=str(tmp_path / 't.pth'))


def test_random_directions_follow_from_the_seed():
    first, again, other = (RandomProjectionTokenizer(28, 7, 1, 8, seed=seed).basis for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_without_a_norm_there_is_nothing_to_fit_and_with_one_it_is_said():
    assert not DCTTokenizer(28, 7, 1, 8, latent_norm='none').needs_fit
    with pytest.raises(ConfigError, match='DCTTokenizer is not fitted.*tools/fit_pca.py'):
        DCTTokenizer(28, 7, 1, 8).encode(torch.zeros(1, 1, 28, 28))
    with pytest.raises(ConfigError, match='vary in 0 directions only'):
        DCTTokenizer(28, 7, 1, 8).fit([torch.ones(10, 1, 28, 28)])


@pytest.mark.parametrize('kind', KINDS)
def test_what_has_seen_no_patches_knows_no_share_of_their_variance(kind):
    tokenizer = kind(28, 7, 1, 8, latent_norm='none')
    assert tokenizer.kept_variance is None
    tokenizer.fit([torch.randn(64, 1, 28, 28)])
    assert 0 < tokenizer.kept_variance < 1
