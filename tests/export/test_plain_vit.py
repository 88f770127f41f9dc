# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from small_models import ARCH, PCA, classifier_config, ldae_config, mae_config
from torch.nn import functional as F

from ldae.export import encoder_of, plain_vit, source_features
from ldae.export.timm_format import build, features_of
from ldae.utils import ConfigError

TOKENIZERS = {
    'pca': dict(PCA, latent_norm='global'),
    'pca-whiten': PCA,
    'ae': dict(type='ldae.PatchAETokenizer', latent_dim=6),
    'vae': dict(type='ldae.PatchVAETokenizer', latent_dim=6),
    'dct': dict(type='ldae.DCTTokenizer', latent_dim=6),
    'random': dict(type='ldae.RandomProjectionTokenizer', latent_dim=6),
    'pixel': dict(type='ldae.PixelTokenizer'),
    'pixel-global': dict(type='ldae.PixelTokenizer', latent_norm='global'),
}
LDAE_VIT = dict(type='ldae.LDAEViT', arch=ARCH, img_size=16, patch_size=4, out_type='avg_featmap')
VIT = dict(type='VisionTransformer', arch=ARCH, img_size=16, patch_size=4)
OTHERS = [
    dict(
        type='SimCLR',
        backbone=dict(VIT, type='MoCoV3ViT'),
        neck=dict(type='NonLinearNeck', in_channels=32, hid_channels=8, out_channels=8, with_avg_pool=False),
        head=dict(type='ContrastiveHead', loss=dict(type='CrossEntropyLoss')),
    ),
    dict(
        type='ldae.SimMIM',
        backbone=dict(VIT, type='ldae.SimMIMViT', mask_patch_size=8, out_type='featmap'),
        neck=dict(type='ldae.SimMIMDecoder', in_channels=32, patch_size=4),
        head=dict(type='SimMIMHead', patch_size=4, loss=dict(type='PixelReconstructionLoss', criterion='L1')),
    ),
]


def assert_timm_agrees(model, vit):
    images = torch.randn(2, vit.in_channels, vit.img_size, vit.img_size)
    expected, (tokens, pooled) = source_features(model, images), features_of(build(vit))(images)
    found = tokens[:, vit.reg_tokens :], pooled
    for ours, theirs in zip(expected, found, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4 * float(ours.abs().max()))


@pytest.mark.parametrize('img_size', [16, 24])
@pytest.mark.parametrize('input_type', ['image', 'latent'])
@pytest.mark.parametrize('tokenizer', TOKENIZERS)
def test_every_tokenizer_that_is_linear_per_patch_folds_into_the_embedding(tokenizer, input_type, img_size, built):
    model = built(ldae_config(TOKENIZERS[tokenizer], dict(input_type=input_type)))
    vit = plain_vit(model, img_size)
    assert vit.state['patch_embed.projection.weight'].shape == (32, 3, 4, 4)
    assert_timm_agrees(model, vit)


@pytest.mark.parametrize('timestep', [0, 10, 999])
def test_the_time_step_asked_for_is_merged(timestep, built):
    model = built(ldae_config())
    vit = plain_vit(model, timestep=timestep)
    assert vit.timestep == timestep
    images = torch.randn(2, 3, 16, 16)
    tokens = model.backbone(model.tokenizer.encode(images), torch.tensor([timestep] * 2))[-1]
    torch.testing.assert_close(features_of(build(vit))(images)[0], tokens, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    'config',
    [
        ldae_config(num_classes=5, backbone=dict(num_classes=5)),
        ldae_config(backbone=dict(conditioned=False), tokenizer=dict(PCA, in_channels=1)),
        ldae_config(backbone=dict(final_norm=True)),
        ldae_config(backbone=dict(reg_tokens=4)),
        mae_config(),
        *({'model': other} for other in OTHERS),
        classifier_config(LDAE_VIT),
        classifier_config(dict(LDAE_VIT, conditioned=False, pool_norm=True)),
        classifier_config(dict(LDAE_VIT, tokenizer=dict(TOKENIZERS['pca'], img_size=16, patch_size=4))),
        classifier_config(dict(LDAE_VIT, out_indices=0)),
        classifier_config(dict(VIT, out_type='avg_featmap', final_norm=False)),
        classifier_config(dict(VIT, out_type='cls_token')),
    ],
    ids=[
        'class-conditional',
        'grey',
        'norm',
        'registers',
        'mae',
        'simclr',
        'simmim',
        'probe',
        'fine-tuned',
        'front',
        'early',
        'mae-tuned',
        'cls-token',
    ],
)
@pytest.mark.parametrize('img_size', [16, 32])
def test_other_encoders_agree_at_their_own_and_at_another_size(config, img_size, built):
    preprocessor = {}
    if config['model'].get('tokenizer', {}).get('in_channels') == 1:
        preprocessor = dict(data_preprocessor=dict(mean=[70.0], std=[90.0]))
    model = built(dict(model=dict(config['model'], **preprocessor)))
    assert_timm_agrees(model, plain_vit(model, img_size))


def test_positions_are_interpolated_bicubically_for_another_size(built):
    model = built(ldae_config())
    positions = model.backbone.pos_embed.detach().reshape(1, 4, 4, 32).permute(0, 3, 1, 2)
    expected = F.interpolate(positions, (6, 6), mode='bicubic').flatten(2).transpose(1, 2)
    torch.testing.assert_close(plain_vit(model, 24).state['pos_embed'], expected)


def test_the_source_is_left_as_it_was(built):
    model = built(ldae_config())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    plain_vit(model, 24)
    source_features(model, torch.randn(1, 3, 24, 24))
    assert model.backbone.out_type == 'raw'
    assert model.backbone.patch_embed.patch_map is model.tokenizer.patch_map
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ('config', 'options', 'message'),
    [
        (ldae_config(dict(type='ldae.PixelTokenizer', resized=8)), {}, "PixelTokenizer isn't a linear map"),
        (ldae_config(transfer_noise=True), {}, 'noisy latents'),
        (classifier_config(dict(LDAE_VIT, final_norm=True, pool_norm=True)), {}, 'both final_norm and pool_norm'),
        (classifier_config(dict(VIT, layer_scale_init_value=0.1)), {}, 'layer scale'),
        (classifier_config(dict(type='ResNet', depth=18)), {}, 'backbone ResNet: only LDAEViT'),
        (ldae_config(), dict(img_size=18), '--img-size 18 does not divide into patches of 4'),
        (ldae_config(), dict(timestep=1000), '--timestep=1000 is out of range.*between 0 and 999'),
        (mae_config(), dict(timestep=10), 'not conditioned on a time step'),
    ],
)
def test_what_cannot_be_a_plain_vit_is_one_line(config, options, message, built):
    with pytest.raises(ConfigError, match=message) as error:
        plain_vit(built(config), **options)
    assert '\n' not in str(error.value)


def test_a_model_without_an_encoder_is_one_line():
    with pytest.raises(ConfigError, match='a.pth holds a Linear, which has no encoder'):
        encoder_of(torch.nn.Linear(1, 1), 'a.pth')
