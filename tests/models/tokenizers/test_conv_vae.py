# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from diffusers import AutoencoderKL

from ldae.models import ConvVAETokenizer, TokenizerTrainer
from ldae.models.tokenizers.base import save_tokenizer
from ldae.models.tokenizers.conv_vae import IMAGENET_PIXELS, build_autoencoder
from ldae.utils import ConfigError

SMALL = dict(img_size=32, patch_size=8, in_channels=3, latent_dim=16, downsample=4, base_channels=8, layers_per_block=1)


@pytest.fixture(scope='module')
def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope='module')
def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        down_block_types=('DownEncoderBlock2D',) * 3,
        up_block_types=('UpDecoderBlock2D',) * 3,
        block_out_channels=(8, 16, 16),
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=0.3,
        shift_factor=0.1,
    ).eval()


@pytest.fixture(scope='module')
def folder(vae, tmp_path_factory):
    """Public weights come as such folders, of a VAE or with one in ``vae/``."""
    path = tmp_path_factory.mktemp('pipeline')
    vae.save_pretrained(path / 'vae')
    return path


def trained(images) -> ConvVAETokenizer:
    torch.manual_seed(0)
    tokenizer = ConvVAETokenizer(**SMALL)
    tokenizer.fit([images])
    return tokenizer


def in_range(images: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET_PIXELS)
    return (images * std + mean) / 127.5 - 1


@pytest.mark.parametrize('inside', ['', 'vae'])
def test_a_diffusers_folder_encodes_and_decodes_as_in_diffusers(vae, folder, images, inside):
    tokenizer = ConvVAETokenizer(**SMALL, checkpoint=str(folder / inside))
    with torch.no_grad():
        latents = (vae.encode(in_range(images)).latent_dist.mean - 0.1) * 0.3  # (B, 4, 8, 8)
        decoded = vae.decode(latents / 0.3 + 0.1).sample
    tokens = tokenizer.encode(images)
    # One token is 2 x 2 cells of 4 channels, in the order (channel, row, column).
    for token, (row, column) in {0: (0, 0), 1: (0, 1), 5: (1, 1), 15: (3, 3)}.items():
        cells = latents[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        torch.testing.assert_close(tokens[:, token], cells.flatten(1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(in_range(tokenizer.decode(tokens)), decoded, atol=1e-4, rtol=1e-4)


def test_training_goes_on_from_a_folder_of_another_width(vae, folder, images):
    options = dict(SMALL, base_channels=4, checkpoint=str(folder))
    trainer = TokenizerTrainer(dict(type='ldae.ConvVAETokenizer', **options)).eval()
    torch.testing.assert_close(trainer.net.vae.encoder.conv_in.weight, vae.encoder.conv_in.weight)
    tokenizer = trainer.export()
    tokenizer.fit([images])
    latents = tokenizer.encode(images)
    assert latents.std() == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(tokenizer.decode(latents), trainer(images), atol=1e-4, rtol=1e-4)


def test_the_network_at_full_size_is_ldms():
    with torch.device('meta'):
        net = build_autoencoder(3, 4, 8, 128, 2)
    # The published autoencoders with 4 channels of stride 8 have 83 653 863 parameters.
    assert sum(param.numel() for param in net.parameters()) == 83_653_863


@pytest.mark.parametrize(('d', 'channels'), [(8, 2), (16, 4), (32, 8), (64, 16), (128, 32)])
def test_dimensions_of_table_2_are_channels_times_four(d, channels):
    with torch.device('meta'):
        tokenizer = ConvVAETokenizer(latent_dim=d)
    assert (tokenizer.channels, tokenizer.num_tokens) == (channels, 256)
    assert tokenizer.vae.config.latent_channels == channels


def test_latents_have_unit_variance_and_the_state_is_frozen(images):
    tokenizer = trained(images)
    latents = tokenizer.encode(images)
    assert latents.shape == (2, 16, 16)
    assert latents.std() == pytest.approx(1, abs=1e-4)
    assert not any(param.requires_grad for param in tokenizer.parameters())
    assert not latents.requires_grad
    assert tokenizer.decode(latents).shape == images.shape
    assert tokenizer.basis is None
    assert tokenizer.patch_map is None


def test_encode_is_float32_even_under_autocast(images):
    tokenizer = trained(images)
    with torch.autocast('cpu', torch.bfloat16):
        latents = tokenizer.encode(images)
    torch.testing.assert_close(latents, tokenizer.encode(images), atol=0, rtol=0)


def test_a_file_restores_the_tokenizer_and_its_pixels(images, tmp_path):
    torch.manual_seed(0)
    tokenizer = ConvVAETokenizer(**SMALL, pixel_mean=[100] * 3, pixel_std=[50] * 3)
    tokenizer.fit([images])
    save_tokenizer(tokenizer, tmp_path / 'tokenizer.pth')
    copy = ConvVAETokenizer(**SMALL, checkpoint=str(tmp_path / 'tokenizer.pth'))
    assert torch.equal(copy.encode(images), tokenizer.encode(images))


def test_an_untrained_tokenizer_names_the_config_that_trains_it(images):
    with pytest.raises(ConfigError, match='not trained: run tools/train.py configs/tokenizers/conv-vae_f8_kl.py'):
        ConvVAETokenizer(**SMALL).encode(images)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(downsample=3), 'downsample=3 must be a power of 2 that divides patch_size=8'),
        (dict(downsample=16), 'downsample=16 must be a power of 2 that divides patch_size=8'),
        (dict(latent_dim=6), 'latent_dim=6 must be a multiple of 4'),
        (dict(pixel_mean=[1.0]), 'must have in_channels=3 values each'),
        (dict(checkpoint='work_dirs/conv-vae_f8_kl-gan/tokenizer.pth'), 'does not exist.*conv-vae_f8_kl-gan.py'),
    ],
)
def test_wrong_options_are_one_clear_line(options, message):
    with pytest.raises(ConfigError, match=message) as info:
        ConvVAETokenizer(**dict(SMALL, **options))
    assert '\n' not in str(info.value)


def test_a_file_or_folder_of_another_network_is_one_clear_line(images, folder, tmp_path):
    save_tokenizer(trained(images), tmp_path / 'tokenizer.pth')
    (tmp_path / 'empty').mkdir()
    cases = [
        (dict(latent_dim=32, checkpoint=tmp_path / 'tokenizer.pth'), 'does not fit ConvVAETokenizer: size mismatch'),
        (dict(latent_dim=32, checkpoint=folder), r'\(3, 4, 4\), the config asks for \(3, 8, 4\)'),
        (dict(downsample=8, checkpoint=folder), r'\(3, 4, 4\), the config asks for \(3, 16, 8\)'),
        (dict(checkpoint=tmp_path / 'empty'), 'has no config.json'),
    ]
    for options, message in cases:
        with pytest.raises(ConfigError, match=message) as info:
            ConvVAETokenizer(**dict(SMALL, **dict(options, checkpoint=str(options['checkpoint']))))
        assert '\n' not in str(info.value)
