# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from ldae.models.layers import AffinePatchMap, PatchEmbed, unpatchify
from ldae.utils import ConfigError


def random_map(latent_dim: int, patch_dim: int) -> AffinePatchMap:
    """A PCA-like map with the mean and scale of real ones."""
    basis = torch.linalg.qr(torch.randn(patch_dim, latent_dim))[0].t()
    scale = torch.rand(latent_dim, 1) + 0.5
    patch_map = AffinePatchMap(latent_dim, patch_dim)
    patch_map.encoder.copy_(basis / scale)
    patch_map.decoder.copy_(basis * scale)
    patch_map.mean.copy_(torch.randn(patch_dim))
    return patch_map


def test_a_gradient_step_on_latents_equals_one_on_the_images_they_decode_to():
    torch.manual_seed(0)
    plain = PatchEmbed((8, 8), 4, 3, 16)
    folded = PatchEmbed((8, 8), 4, 3, 16)
    folded.load_state_dict(plain.state_dict())
    folded.patch_map = random_map(5, 48)
    latents = torch.randn(2, 4, 5)
    images = unpatchify(folded.patch_map.decode(latents), 4, (2, 2))
    for embed, x in ((plain, images), (folded, latents)):
        tokens, grid = embed(x)
        assert grid == (2, 2)
        (tokens**3).mean().backward()
        torch.optim.SGD(embed.parameters(), lr=0.1).step()
    torch.testing.assert_close(folded.projection.weight, plain.projection.weight, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(folded.projection.bias, plain.projection.bias, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('input_type', ['image', 'latent'])
def test_raw_images_are_embedded_as_their_latents(input_type):
    embed = PatchEmbed((8, 8), 4, 3, 16, input_type, latent_dim=5)
    embed.patch_map = random_map(5, 48)
    images = torch.randn(2, 3, 8, 8)
    from ldae.models.layers import patchify

    latents = embed.patch_map.encode(patchify(images, 4))
    torch.testing.assert_close(embed(images)[0], embed(latents)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('input_type', ['image', 'latent'])
def test_a_checkpoint_with_a_map_folds_into_a_plain_embedding(input_type):
    source = PatchEmbed((8, 8), 4, 3, 16, input_type, latent_dim=5)
    source.patch_map = random_map(5, 48)
    plain = PatchEmbed((8, 8), 4, 3, 16)
    assert not any(plain.load_state_dict(source.state_dict()))
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(plain(images)[0], source(images)[0], atol=1e-5, rtol=1e-5)


def test_an_image_that_does_not_divide_into_patches_is_one_clear_line():
    with pytest.raises(ConfigError, match='9 x 8 pixels does not divide into patches of 4') as error:
        PatchEmbed((8, 8), 4, 3, 16)(torch.zeros(1, 3, 9, 8))
    assert '\n' not in str(error.value)
