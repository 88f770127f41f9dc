# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from ldae.datasets import IDXDataset
from ldae.models import PatchPCATokenizer
from ldae.models.layers import patchify
from ldae.models.tokenizers.base import save_tokenizer
from ldae.utils import ConfigError


@pytest.fixture(scope='module')
def images() -> torch.Tensor:
    """Real images, (400, 1, 28, 28), about unit variance."""
    return IDXDataset(split='test').images[:400].float() / 90 - 0.8


def fitted(images: torch.Tensor, **kwargs) -> PatchPCATokenizer:
    tokenizer = PatchPCATokenizer(**dict(dict(img_size=28, patch_size=7, in_channels=1, latent_dim=8), **kwargs))
    tokenizer.fit(images.split(64))
    return tokenizer


@pytest.fixture(scope='module')
def reference(images) -> PCA:
    return PCA(svd_solver='full').fit(patchify(images, 7).flatten(0, 1).double().numpy())


def test_components_and_variances_agree_with_sklearn(images, reference):
    tokenizer = fitted(images, full_basis=True)
    cosines = (tokenizer.full_basis.double().numpy() * reference.components_).sum(axis=1)
    np.testing.assert_allclose(np.abs(cosines[:16]), 1, atol=1e-4)
    np.testing.assert_allclose(tokenizer.variances, reference.explained_variance_, rtol=1e-3, atol=1e-5)
    ratio = tokenizer.explained_variance_ratio
    np.testing.assert_allclose(ratio, reference.explained_variance_ratio_, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(tokenizer.mean, reference.mean_, atol=1e-5)


def test_latents_agree_with_sklearn_up_to_sign_and_scale(images, reference):
    tokenizer = fitted(images, latent_norm='none')
    expected = reference.transform(patchify(images[:10], 7).flatten(0, 1).double().numpy())[:, :8]
    signs = np.sign((tokenizer.basis.double().numpy() * reference.components_[:8]).sum(axis=1))
    np.testing.assert_allclose(tokenizer.encode(images[:10]).flatten(0, 1), expected * signs, atol=2e-3)


def test_global_norm_gives_unit_variance_overall_and_whiten_in_each_dimension(images):
    latents = fitted(images, latent_norm='global').encode(images).flatten(0, 1).double()
    assert latents.square().mean().sqrt().item() == pytest.approx(1, abs=1e-3)
    assert latents.var(dim=0).max() > 2
    white = fitted(images, latent_norm='whiten').encode(images).flatten(0, 1).double()
    torch.testing.assert_close(white.T.cov(), torch.eye(8).double(), atol=5e-3, rtol=0)


@pytest.mark.parametrize('norm', ['global', 'whiten', 'none'])
def test_decode_then_encode_is_the_identity_and_the_reverse_a_projection(images, norm):
    tokenizer = fitted(images, latent_norm=norm)
    latents = torch.randn(3, 16, 8)
    torch.testing.assert_close(tokenizer.encode(tokenizer.decode(latents)), latents, atol=1e-4, rtol=1e-4)
    once = tokenizer.decode(tokenizer.encode(images[:5]))
    torch.testing.assert_close(tokenizer.decode(tokenizer.encode(once)), once, atol=1e-4, rtol=1e-4)


def test_all_components_reconstruct_the_image(images):
    tokenizer = fitted(images, latent_dim=49)
    torch.testing.assert_close(tokenizer.decode(tokenizer.encode(images[:5])), images[:5], atol=1e-4, rtol=1e-4)


def test_basis_rows_are_orthonormal(images):
    basis = fitted(images).basis
    torch.testing.assert_close(basis @ basis.T, torch.eye(8), atol=1e-5, rtol=1e-5)


def test_the_result_does_not_depend_on_batch_size(images):
    tokenizers = [PatchPCATokenizer(28, 7, 1, 8) for _ in range(2)]
    tokenizers[0].fit(images.split(50))
    tokenizers[1].fit(images.split(399))
    torch.testing.assert_close(tokenizers[0].basis, tokenizers[1].basis, atol=1e-4, rtol=1e-4)


def test_encode_is_float32_outside_autograd_even_under_autocast(images):
    tokenizer, x = fitted(images), images[:2].clone().requires_grad_()
    with torch.autocast('cpu', torch.bfloat16):
        latents = tokenizer.encode(x)
    assert latents.dtype == torch.float32
    assert not latents.requires_grad


def test_state_is_all_buffers_and_travels_in_the_state_dict(images):
    tokenizer = fitted(images)
    assert not list(tokenizer.parameters())
    copy = PatchPCATokenizer(28, 7, 1, 8)
    assert not copy.is_fitted
    copy.load_state_dict(tokenizer.state_dict())
    assert copy.is_fitted
    assert torch.equal(copy.encode(images[:2]), tokenizer.encode(images[:2]))


def test_a_file_restores_the_tokenizer(images, tmp_path):
    tokenizer = fitted(images)
    save_tokenizer(tokenizer, tmp_path / 'pca.pth')
    copy = PatchPCATokenizer(28, 7, 1, 8, checkpoint=str(tmp_path / 'pca.pth'))
    assert torch.equal(copy.encode(images[:2]), tokenizer.encode(images[:2]))
    assert list(tmp_path.iterdir()) == [tmp_path / 'pca.pth']


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(latent_dim=0), 'latent_dim=0 is out of range'),
        (dict(latent_dim=769), 'latent_dim=769 is out of range.*between 1 and 768'),
        (dict(latent_dim=2.5), 'latent_dim must be an integer, got 2.5'),
        (dict(img_size=250), 'img_size=250 is not divisible by patch_size=16'),
        (dict(latent_norm='whitened'), "did you mean 'whiten'"),
        (dict(checkpoint='missing.pth'), 'missing.pth does not exist: make it with tools/fit_pca.py'),
    ],
)
def test_wrong_options_are_one_clear_line(options, message):
    with pytest.raises(ConfigError, match=message) as error:
        PatchPCATokenizer(**options)
    assert '\n' not in str(error.value)


def test_an_unfitted_tokenizer_refuses_to_encode():
    with pytest.raises(ConfigError, match='not fitted.*tools/fit_pca.py'):
        PatchPCATokenizer(28, 7, 1, 8).encode(torch.zeros(1, 1, 28, 28))


def test_images_of_another_size_are_refused(images):
    with pytest.raises(ConfigError, match=r'\(1, 28, 28\).*gives \(3, 28, 28\)'):
        fitted(images).encode(torch.zeros(1, 3, 28, 28))


@pytest.mark.parametrize(
    ('options', 'message'),
    [(dict(latent_dim=4), 'fit a new one'), (dict(latent_norm='whiten'), "latent_norm='global'")],
)
def test_a_checkpoint_of_another_tokenizer_is_refused(images, options, message):
    state = fitted(images).state_dict()
    other = PatchPCATokenizer(**dict(dict(img_size=28, patch_size=7, in_channels=1, latent_dim=8), **options))
    with pytest.raises(ConfigError, match=message):
        other.load_state_dict(state)


def test_constant_images_cannot_be_fitted():
    with pytest.raises(ConfigError, match='vary in 0 directions only'):
        PatchPCATokenizer(28, 7, 1, 8).fit([torch.ones(10, 1, 28, 28)])


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path):
    (tmp_path / 'x.pth').write_bytes(b'not a checkpoint')
    with pytest.raises(ConfigError, match='is not a tokenizer file'):
        PatchPCATokenizer(28, 7, 1, 8, checkpoint=str(tmp_path / 'x.pth'))


def test_an_image_that_is_not_finite_is_named_as_the_cause():
    images = torch.rand(20, 3, 16, 16)
    images[7, 1, 3, 3] = float('nan')
    with pytest.raises(ConfigError, match='the images that it is fitted on hold NaN or infinite values'):
        PatchPCATokenizer(16, 4, 3, 8).fit(images.split(5))
