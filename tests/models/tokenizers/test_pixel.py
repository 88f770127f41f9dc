# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize as torchvision_resize

from ldae.models import PixelTokenizer
from ldae.models.layers import patchify
from ldae.utils import ConfigError


def images(size: int, channels: int = 3) -> torch.Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 + 0.5


@pytest.mark.parametrize(('resized', 'patch', 'd'), [(256, 16, 768), (128, 8, 192), (64, 4, 48), (32, 2, 12)])
def test_figure_5_has_256_tokens_of_768_to_12_dimensions(resized, patch, d):
    tokenizer = PixelTokenizer(resized=resized)
    latents = tokenizer.encode(images(256))
    assert latents.shape == (2, 256, d)
    assert (tokenizer.latent_dim, tokenizer.num_tokens, tokenizer.token_patch) == (d, 256, patch)
    assert tokenizer.decode(latents).shape == (2, 3, 256, 256)


def test_full_size_is_the_identity_on_patches():
    x, tokenizer = images(32), PixelTokenizer(32, 8)
    assert torch.equal(tokenizer.encode(x), patchify(x, 8))
    assert torch.equal(tokenizer.decode(tokenizer.encode(x)), x)
    assert torch.equal(tokenizer.basis, torch.eye(192))
    assert torch.equal(tokenizer.patch_map.encode(patchify(x, 8)), patchify(x, 8))


@pytest.mark.parametrize('resized', [16, 8, 4])
def test_resized_pixels_are_those_of_pil_and_torchvision(resized):
    x = images(32)
    tokenizer = PixelTokenizer(32, 8, resized=resized)
    assert tokenizer.patch_map is None
    assert tokenizer.basis is None
    tokens = tokenizer.encode(x)
    pil = np.stack(
        [
            [np.asarray(Image.fromarray(c.numpy()).resize((resized, resized), Image.Resampling.BICUBIC)) for c in i]
            for i in x
        ]
    )
    torch.testing.assert_close(tokens, patchify(torch.from_numpy(pil), resized // 4), atol=1e-5, rtol=1e-5)
    reference = torchvision_resize(x, [resized] * 2, InterpolationMode.BICUBIC, antialias=True)
    torch.testing.assert_close(tokens, patchify(reference, resized // 4), atol=1e-5, rtol=1e-5)
    up = torchvision_resize(reference, [32, 32], InterpolationMode.BICUBIC, antialias=True)
    torch.testing.assert_close(tokenizer.decode(tokens), up, atol=1e-5, rtol=1e-5)


def test_global_norm_is_fitted_to_mean_zero_and_variance_one():
    tokenizer, x = PixelTokenizer(32, 8, resized=8, latent_norm='global'), images(32)
    assert tokenizer.needs_fit
    with pytest.raises(ConfigError, match='not fitted'):
        tokenizer.encode(x)
    tokenizer.fit(x.split(1))
    latents = tokenizer.encode(x)
    assert latents.mean() == pytest.approx(0, abs=1e-5)
    assert latents.std() == pytest.approx(1, abs=1e-5)
    plain = PixelTokenizer(32, 8, resized=8)
    torch.testing.assert_close(tokenizer.decode(latents), plain.decode(plain.encode(x)), atol=1e-5, rtol=1e-5)
    copy = PixelTokenizer(32, 8, resized=8, latent_norm='global')
    copy.load_state_dict(tokenizer.state_dict())
    assert torch.equal(copy.encode(x), latents)


@pytest.mark.parametrize('resized', [0, 24, 100, 512, 2.0])
def test_a_size_that_tokens_cannot_share_is_one_clear_line(resized):
    with pytest.raises(ConfigError, match=r'must be (an integer|one of 16, 32, ... 256: 16 tokens a side)'):
        PixelTokenizer(resized=resized)
