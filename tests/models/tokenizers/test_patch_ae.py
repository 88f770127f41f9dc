# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from torch import Tensor

from ldae.datasets import IDXDataset
from ldae.models import LDAE, PatchAETokenizer, PatchPCATokenizer, PatchVAETokenizer, TokenizerTrainer
from ldae.models.layers import patchify
from ldae.models.tokenizers.base import save_tokenizer
from ldae.utils import ConfigError

GEOMETRY = dict(img_size=28, patch_size=7, in_channels=1, latent_dim=4)
KINDS = [PatchAETokenizer, PatchVAETokenizer]


@pytest.fixture(scope='module')
def images() -> Tensor:
    """Real images, (200, 1, 28, 28), about unit variance."""
    return IDXDataset(split='test').images[:200].float() / 90 - 0.8


def trained(images: Tensor, kind: type, **options) -> PatchAETokenizer:
    """Minimise the trainer's loss until nothing moves; then measure, as the hook does."""
    torch.manual_seed(0)
    trainer = TokenizerTrainer(dict(type=f'ldae.{kind.__name__}', **GEOMETRY, **options)).eval()
    optimizer = torch.optim.LBFGS(
        trainer.net.parameters(), max_iter=150, history_size=20, line_search_fn='strong_wolfe'
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = sum(trainer(images, mode='loss').values())
        loss.backward()
        return loss

    optimizer.step(closure)
    tokenizer = trainer.export()
    tokenizer.fit(images.split(64))
    return tokenizer


@pytest.fixture(scope='module')
def autoencoder(images) -> PatchAETokenizer:
    return trained(images, PatchAETokenizer)


@pytest.fixture(scope='module')
def pca(images) -> PatchPCATokenizer:
    tokenizer = PatchPCATokenizer(**GEOMETRY)
    tokenizer.fit([images])
    return tokenizer


def error(tokenizer, images: Tensor) -> float:
    return (tokenizer.decode(tokenizer.encode(images)) - images).double().square().mean().item()


def test_a_converged_autoencoder_reconstructs_as_well_as_pca(autoencoder, pca, images):
    assert error(autoencoder, images) == pytest.approx(error(pca, images), rel=1e-3)


def test_a_converged_autoencoder_spans_what_pca_spans(autoencoder, pca):
    cosines = torch.linalg.svdvals(autoencoder.basis.double() @ pca.basis.double().T)
    angles = torch.rad2deg(torch.arccos(cosines.clamp(max=1)))
    assert angles.max() < 2


def test_without_noise_the_vae_has_the_same_optimum(images, pca):
    assert error(trained(images, PatchVAETokenizer), images) == pytest.approx(error(pca, images), rel=1e-2)


@pytest.mark.parametrize('weight', [1.0, 20.0])
def test_with_its_noise_the_vae_is_probabilistic_pca(images, weight):
    """Tipping & Bishop's optimum, of a decoder with variance weight / 2: components shrink, and below it are switched off."""
    torch.manual_seed(0)
    trainer = TokenizerTrainer(dict(type='ldae.PatchVAETokenizer', **GEOMETRY), kl_weight=weight).double().eval()
    net = trainer.net
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=400, history_size=20, line_search_fn='strong_wolfe')

    def closure() -> Tensor:
        optimizer.zero_grad()
        result = net(images.double())
        # The noise's mean part in the error, which training draws.
        noise = result.posterior.logvar.exp() * (net.decoder * net.size).square().sum(dim=1)
        loss = sum(trainer.losses(result).values()) + noise.flatten(1).sum(dim=1).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    patches = patchify(images.double(), 7).flatten(0, 1)
    values, vectors = torch.linalg.eigh(torch.cov(patches.t(), correction=0))
    values, vectors = values[-4:], vectors[:, -4:]
    shrink = (1 - weight / (2 * values)).clamp(min=0)
    assert (shrink == 0).any() == (weight > 1)
    found = (net.decoder.t() @ net.encoder).detach() * net.size**2
    torch.testing.assert_close(found, vectors * shrink @ vectors.t(), atol=0.01, rtol=0)


def test_maps_are_two_and_not_transposes(autoencoder):
    encoder, decoder = autoencoder._raw_maps()
    torch.testing.assert_close(decoder @ encoder.T, torch.eye(4).double(), atol=0.02, rtol=0)
    assert (encoder - decoder).abs().max() > 0.05


def test_basis_is_orthonormal_and_holds_every_decoded_patch(autoencoder):
    basis = autoencoder.basis
    torch.testing.assert_close(basis @ basis.T, torch.eye(4), atol=1e-5, rtol=0)
    patches = patchify(autoencoder.decode(torch.randn(2, 16, 4)), 7) - autoencoder.mean
    torch.testing.assert_close(patches @ basis.T @ basis, patches, atol=1e-4, rtol=0)


def test_encode_and_decode_are_the_written_out_maps(autoencoder, images):
    encoder, decoder = (m.numpy() for m in autoencoder._raw_maps())
    mean, scale = autoencoder.mean.double().numpy(), autoencoder.scale.double().numpy()
    patches = patchify(images, 7).double().numpy()
    np.testing.assert_allclose(mean, patches.reshape(-1, 49).mean(0), atol=1e-5)
    latents = (patches - mean) @ encoder.T / scale
    np.testing.assert_allclose(autoencoder.encode(images), latents, atol=1e-4)
    decoded = patchify(autoencoder.decode(torch.from_numpy(latents)), 7)
    np.testing.assert_allclose(decoded, latents * scale @ decoder + mean, atol=1e-4)


@pytest.mark.parametrize('norm', ['global', 'whiten'])
def test_latents_have_unit_variance(images, norm):
    torch.manual_seed(0)
    tokenizer = PatchAETokenizer(**GEOMETRY, latent_norm=norm)
    tokenizer.take(tokenizer.training_net())
    tokenizer.fit(images.split(64))
    latents = tokenizer.encode(images).flatten(0, 1).double()
    assert latents.var(dim=0).mean() == pytest.approx(1, abs=1e-3)
    if norm == 'whiten':
        torch.testing.assert_close(latents.var(dim=0), torch.ones(4).double(), atol=1e-3, rtol=0)


def test_training_goes_on_from_a_file(autoencoder, images, tmp_path):
    save_tokenizer(autoencoder, tmp_path / 'tokenizer.pth')
    copy = PatchAETokenizer(**GEOMETRY, checkpoint=str(tmp_path / 'tokenizer.pth'))
    assert torch.equal(copy.encode(images), autoencoder.encode(images))
    result = copy.training_net()(images)
    torch.testing.assert_close(result.output, autoencoder.decode(autoencoder.encode(images)), atol=1e-4, rtol=0)


def test_a_trained_tokenizer_is_frozen_and_serves_a_model(autoencoder, images, tmp_path):
    save_tokenizer(autoencoder, tmp_path / 'tokenizer.pth')
    arch = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
    tokenizer = dict(type='ldae.PatchAETokenizer', **GEOMETRY, checkpoint=str(tmp_path / 'tokenizer.pth'))
    model = LDAE(tokenizer, dict(type='ldae.GaussianNoiser'), dict(type='ldae.LDAEViT', arch=arch))
    assert not list(model.tokenizer.parameters())
    assert model.backbone.patch_embed.patch_map is model.tokenizer.patch_map
    loss = model.loss(images[:4])['loss']
    loss.backward()
    assert torch.isfinite(loss)


@pytest.mark.parametrize('kind', KINDS)
def test_an_untrained_tokenizer_names_the_config_that_trains_it(kind):
    name = 'ae' if kind is PatchAETokenizer else 'vae'
    with pytest.raises(ConfigError, match=f'not trained: run tools/train.py configs/tokenizers/patch-{name}_d64.py'):
        kind(256, 16, 3, 64).encode(torch.zeros(1, 3, 256, 256))


def bad_files(tmp_path, autoencoder):
    save_tokenizer(autoencoder, tmp_path / 'patch-ae_d8' / 'tokenizer.pth')
    save_tokenizer(PatchVAETokenizer(**GEOMETRY), tmp_path / 'untrained.pth')
    save_tokenizer(PatchPCATokenizer(**GEOMETRY), tmp_path / 'pca.pth')
    (tmp_path / 'noise.pth').write_bytes(b'noise')


@pytest.mark.parametrize(
    ('kind', 'file', 'options', 'message'),
    [
        (PatchAETokenizer, 'cifar10/patch-ae_d8/tokenizer.pth', {}, 'with .*patch-ae_d8.py --scale cifar10$'),
        (PatchAETokenizer, 'patch-ae_d32/tokenizer.pth', {}, 'does not exist: make it with .*patch-ae_d32.py'),
        (PatchAETokenizer, 'patch-ae_d8/tokenizer.pth', dict(latent_dim=8), r'\(4, 49\), .*\(8, 49\).*patch-ae_d8.py'),
        (PatchAETokenizer, 'patch-ae_d8/tokenizer.pth', dict(patch_size=14), r'\(4, 49\), .*\(4, 196\).*patch-ae_d8'),
        (PatchAETokenizer, 'patch-ae_d8/tokenizer.pth', dict(latent_norm='none'), "latent_norm='global'.*patch-ae_d8"),
        (
            PatchVAETokenizer,
            'patch-ae_d8/tokenizer.pth',
            {},
            'holds a PatchAETokenizer.*asks for a PatchVAETokenizer.*patch-vae_d8.py',
        ),
        (PatchVAETokenizer, 'pca.pth', {}, 'holds a PatchPCATokenizer.*make one with .*patch-vae_d8.py'),
        (
            PatchVAETokenizer,
            'untrained.pth',
            {},
            'holds a PatchVAETokenizer that is not trained: run .*patch-vae_d8.py',
        ),
        (PatchVAETokenizer, 'noise.pth', {}, 'not a tokenizer file.*patch-vae_d8.py'),
    ],
)
def test_a_wrong_file_is_one_line_that_names_the_config(kind, file, options, message, autoencoder, tmp_path):
    bad_files(tmp_path, autoencoder)
    with pytest.raises(ConfigError, match=message) as info:
        kind(**dict(GEOMETRY, **options), checkpoint=str(tmp_path / file))
    assert '\n' not in str(info.value)
