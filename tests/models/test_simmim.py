# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from mmpretrain.models import VisionTransformer

from ldae.models import SimMIM, SimMIMViT
from ldae.utils import ConfigError

ARCH = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
OPTIONS = dict(arch=ARCH, img_size=32, patch_size=4, in_channels=1, out_type='featmap')


@pytest.fixture
def encoder() -> SimMIMViT:
    torch.manual_seed(0)
    model = SimMIMViT(**OPTIONS, mask_patch_size=8)
    model.init_weights()
    model.eval()
    return model


def test_without_masks_it_is_mmpretrains_vit(encoder):
    plain = VisionTransformer(**OPTIONS)
    plain.eval()
    missing, unexpected = plain.load_state_dict(encoder.state_dict(), strict=False)
    assert (missing, unexpected) == ([], ['mask_token'])
    images = torch.randn(2, 1, 32, 32)
    assert torch.equal(encoder(images)[0], plain(images)[0])
    nothing = torch.zeros(2, 8, 8, dtype=torch.bool)
    torch.testing.assert_close(encoder(images, nothing)[0], plain(images)[0])


def test_masked_pixels_are_not_seen_and_others_are(encoder):
    images = torch.randn(2, 1, 32, 32)
    mask = encoder.random_mask(2)
    pixels = mask.repeat_interleave(4, 1).repeat_interleave(4, 2).unsqueeze(1)
    with torch.no_grad():
        before = encoder(images, mask)[0]
        assert torch.equal(encoder(torch.where(pixels, 9.0, images), mask)[0], before)
        assert not torch.equal(encoder(torch.where(pixels, images, 9.0), mask)[0], before)


def test_whole_squares_are_masked_in_the_share_that_is_asked_for(encoder):
    mask = encoder.random_mask(200)
    squares = mask.view(200, 4, 2, 4, 2).float().mean(dim=(2, 4))
    assert set(squares.unique().tolist()) == {0.0, 1.0}
    assert (squares.sum(dim=(1, 2)) == 10).all()  # of 16, 60% rounded up
    assert (squares.mean(0) - 10 / 16).abs().max() < 0.15  # each as often as another


def test_the_loss_is_the_mean_difference_of_masked_pixels(encoder):
    model = SimMIM(
        backbone=encoder,
        neck=dict(type='ldae.SimMIMDecoder', in_channels=16, patch_size=4, out_channels=1),
        head=dict(
            type='SimMIMHead', patch_size=4, loss=dict(type='PixelReconstructionLoss', criterion='L1', channel=1)
        ),
    )
    images = torch.randn(3, 1, 32, 32)
    torch.manual_seed(1)
    loss = model.loss(images)['loss']
    torch.manual_seed(1)
    mask = encoder.random_mask(3)
    predicted = model.neck(encoder(images, mask)[0])
    pixels = mask.repeat_interleave(4, 1).repeat_interleave(4, 2).unsqueeze(1)
    torch.testing.assert_close(loss, (predicted - images)[pixels].abs().mean())


@pytest.mark.parametrize('squares', [6, 12])
def test_squares_that_do_not_fit_are_said(squares):
    with pytest.raises(ConfigError, match='must be a multiple of the patch size, 4, and divide the image size, 32'):
        SimMIMViT(**OPTIONS, mask_patch_size=squares)
