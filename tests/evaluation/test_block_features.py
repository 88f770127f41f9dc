# SPDX-License-Identifier: Apache-2.0
import pytest
import timm
import torch
from mmengine.registry import init_default_scope
from mmpretrain.models import MAE, ImageClassifier, MAEViT, MoCoV3ViT, ResNet, VisionTransformer
from torch import nn

from ldae.evaluation.features import (
    block_features,
    block_tokens,
    features_of_blocks,
    features_of_settings,
    num_blocks,
    pooled_features,
    poolings_of,
    resolve_blocks,
    resolve_inputs,
)
from ldae.models.noisers import noise_of_images
from ldae.registry import MODELS
from ldae.utils import ConfigError
from ldae.utils.models import changed

ARCH = dict(embed_dims=24, num_layers=3, num_heads=2, feedforward_channels=48)
PCA, PIXEL = dict(type='ldae.PatchPCATokenizer', latent_dim=8), dict(type='ldae.PixelTokenizer')


def in_eval(model):
    for param in model.parameters():
        nn.init.normal_(param, std=0.2)
    model.train(False)  # mmpretrain's eval returns None
    return model


def make_ldae(tokenizer=PCA, input_type='image', **parts):
    init_default_scope('mmpretrain')
    tokenizer = dict(tokenizer, img_size=28, patch_size=7, in_channels=1)
    backbone = dict(type='ldae.LDAEViT', arch=ARCH, input_type=input_type)
    cfg = dict(type='ldae.LDAE', noiser=dict(type='ldae.GaussianNoiser'), backbone=backbone, **parts)
    torch.manual_seed(0)
    model = in_eval(MODELS.build(dict(cfg, tokenizer=tokenizer)))
    if hasattr(model.tokenizer, 'fit'):
        model.tokenizer.fit([torch.randn(64, 1, 28, 28)])
    return model


@pytest.fixture
def images():
    return torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(1))


def make_vit(cls=VisionTransformer, **options):
    return in_eval(cls(arch=ARCH, img_size=28, patch_size=7, patch_cfg=dict(in_channels=1), **options))


def test_blocks_of_an_mmpretrain_vit_are_its_out_indices(images):
    vit = make_vit(out_type='raw', out_indices=[0, 1, 2])
    expected = torch.stack([tokens[:, 1:].mean(dim=1) for tokens in vit(images)], dim=1)
    torch.testing.assert_close(block_features(vit, images, [1, 2, 3]), expected)
    classifier = ImageClassifier(backbone=vit)
    torch.testing.assert_close(block_features(classifier, images, [-2, 1]), expected[:, [1, 0]])
    torch.testing.assert_close(block_features(vit, images), expected[:, 2:])


def test_tokens_of_a_block_are_those_that_are_averaged(images):
    vit = make_vit(out_type='raw', out_indices=[0, 1, 2])
    for block, tokens in enumerate(vit(images), start=1):
        torch.testing.assert_close(block_tokens(vit, images, block), tokens[:, 1:])
    pooled = make_vit(out_type='avg_featmap')
    for model in (vit, pooled, MAE(backbone=make_vit(MAEViT)), make_ldae()):
        for block in (1, -1):
            averages = block_features(model, images, [block])[:, 0]
            found, tokens = features_of_blocks(model, images, resolve_blocks(3, [block]), tokens=True)
            torch.testing.assert_close(found, averages)
            assert torch.equal(tokens, block_tokens(model, images, block))
            if block == 1 or model is not pooled:  # which normalises the average again
                torch.testing.assert_close(tokens.mean(dim=1), averages)
    maps = in_eval(ResNet(18, in_channels=1))
    assert block_tokens(maps, images, 2).shape == (4, 16, 128)


def test_blocks_of_mae_see_every_patch(images):
    vit = make_vit(MAEViT)
    vit.out_indices = [0, 2]
    expected = [tokens[:, 1:].mean(dim=1) for tokens in vit(images, mask=None)]
    for model in (vit, MAE(backbone=vit)):
        torch.testing.assert_close(block_features(model, images, [1, 3]), torch.stack(expected, dim=1))


def test_blocks_of_a_timm_vit_are_its_intermediates(images):
    vit = in_eval(timm.create_model('vit_tiny_patch16_224', img_size=28, patch_size=7, depth=3, in_chans=1))
    maps = vit.forward_intermediates(images, indices=[0, 1, 2], intermediates_only=True)
    found = block_features(vit, images, [1, 2, 3])
    torch.testing.assert_close(found[:, :2], torch.stack([m.mean(dim=(2, 3)) for m in maps[:2]], dim=1))
    torch.testing.assert_close(found[:, 2], pooled_features(vit, images))


def test_stages_of_convolutional_networks_have_widths_of_their_own():
    pictures = torch.randn(2, 3, 32, 32)
    resnet = ResNet(18, out_indices=(0, 1, 2, 3))
    resnet.train(False)
    for found, stage in zip(features_of_blocks(resnet, pictures, [1, 2, 3, 4]), resnet(pictures), strict=True):
        torch.testing.assert_close(found, stage.mean(dim=(2, 3)))
    with pytest.raises(ConfigError, match=r'\[64, 512\] channels'):
        block_features(resnet, pictures, [1, 4])
    other = timm.create_model('resnet18').eval()
    maps = other.forward_intermediates(pictures, intermediates_only=True)
    found = features_of_blocks(other, pictures, range(1, num_blocks(other) + 1))
    for one, stage in zip(found, maps, strict=True):
        torch.testing.assert_close(one, stage.mean(dim=(2, 3)))


def test_a_network_without_parts_is_one_block(images):
    assert num_blocks(nn.Flatten()) == 1
    torch.testing.assert_close(block_features(nn.Flatten(), images)[:, 0], images.flatten(1))


@pytest.mark.parametrize(('tokenizer', 'input_type'), [(PCA, 'image'), (PCA, 'latent'), (PIXEL, 'image')])
def test_settings_of_an_ldae_are_those_of_its_encoder_alone(images, tokenizer, input_type):
    model = make_ldae(tokenizer, input_type)
    found = list(features_of_settings(model, images, [1, 3], [10, 500], [False, True], range(4)))
    latents = model.tokenizer.encode(images)
    noise = noise_of_images(range(4), latents)
    for i, (t, noisy) in enumerate([(10, False), (10, True), (500, False), (500, True)]):
        z = model.noiser(latents, torch.full((4,), t), noise=noise).z_t if noisy else latents
        # The encoder as LDAE.extract_feat calls it, one block at a time.
        for block, rows in zip((1, 3), found[i], strict=True):
            model.backbone.out_indices, model.backbone.timestep = [block - 1], t
            torch.testing.assert_close(rows, model.backbone(model._encoder_input(z))[0].mean(dim=1))


@pytest.mark.parametrize('noisy', [False, True])
def test_blocks_of_the_decoder_run_on_the_encoder_s_tokens_at_the_same_time_step(images, noisy):
    model, steps = make_ldae(), [10, 600]
    settings = [*features_of_settings(model, images, [1, 4, 6], steps, [noisy], range(4))]
    z0 = model.tokenizer.encode(images)
    for step, found in zip(steps, settings, strict=True):
        t = torch.tensor([step] * 4)
        z = model.noiser(z0, t, noise=noise_of_images(range(4), z0)).z_t if noisy else z0
        x = model.backbone(model._encoder_input(z), t)[-1]
        cond, expected = model.neck.time_embed(t), []
        for layer in model.neck.layers:
            x = layer(x, cond)
            expected.append(x.mean(dim=1))
        torch.testing.assert_close(found[1], expected[0])
        torch.testing.assert_close(found[2], expected[2])
    model.backbone.timestep = 600
    if not noisy:
        torch.testing.assert_close(block_features(model, images, [6])[:, 0], expected[2])
        torch.testing.assert_close(block_tokens(model, images, 6), x)


def test_the_decoder_of_a_masked_model_gets_what_it_gets_in_validation(images):
    model, seen = make_ldae(masking=dict(type='ldae.RandomMasking', ratio=0.5)), []
    model.neck.layers[0].register_forward_hook(lambda layer, given, output: seen.append(output.mean(dim=1)))
    z, t = model.tokenizer.encode(images), torch.full((4,), model.backbone.timestep)
    model._predict_target(z, t)
    torch.testing.assert_close(block_features(model, images, [4])[:, 0], seen[0])


def test_each_block_runs_once(images):
    model, calls = make_ldae(), []
    for layer in model.backbone.layers:
        layer.register_forward_hook(lambda *args: calls.append(1))
    list(features_of_settings(model, images, [1, 2, 3], [10, 20], [False], range(4)))
    assert len(calls) == 2 * 3
    assert all(len(layer._forward_hooks) == 1 for layer in model.backbone.layers)


def test_noise_of_an_image_is_its_own_and_standard_normal():
    like = torch.zeros(200, 16, 8)
    noise = noise_of_images(range(200), like)
    assert torch.equal(noise_of_images([7, 150], like), noise[[7, 150]])
    assert noise.flatten(1).unique(dim=0).shape[0] == 200
    assert noise.mean().abs() < 4 / len(noise.flatten()) ** 0.5
    assert noise.std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize('blocks', [[0], [4], [-4], [1.0], [True], [], [1, 1], [3, -1]])
def test_a_block_that_is_not_there_is_one_clear_line(images, blocks):
    with pytest.raises(ConfigError, match='block') as error:
        block_features(make_vit(), images, blocks)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('make', 'timesteps', 'noisy', 'message'),
    [
        (make_ldae, [1000], [False], 'timesteps=1000 is out of range'),
        (make_ldae, [], [False], 'at least one value'),
        (make_ldae, None, [], 'at least one value'),
        (make_vit, [10], [False], 'VisionTransformer has no time step'),
        (make_vit, None, [True], 'only an l-DAE has noisy input'),
    ],
)
def test_a_setting_that_a_model_has_not_is_one_clear_line(make, timesteps, noisy, message):
    with pytest.raises(ConfigError) as error:
        resolve_inputs(make(), timesteps, noisy)
    assert message in str(error.value)


def test_without_time_steps_a_model_takes_its_own():
    assert resolve_inputs(make_ldae(), None, [False]) == ((10,), (False,))
    assert resolve_inputs(make_vit(), None, [False]) == ((None,), (False,))


@pytest.mark.parametrize('kind', [VisionTransformer, MoCoV3ViT])
@pytest.mark.parametrize('out_type', ['cls_token', 'avg_featmap', 'featmap', 'raw'])
def test_the_class_token_is_the_one_that_the_encoder_gives(kind, out_type, images):
    options = dict(out_indices=[0, 1, 2]) if kind is VisionTransformer else {}
    vit = make_vit(kind, out_type='cls_token', **options)
    expected = torch.stack(vit(images), dim=1)  # normed after the last block, as a linear layer is trained on it
    with changed(vit, out_type=out_type):
        assert poolings_of(vit) == ('mean', 'cls')
        torch.testing.assert_close(block_features(vit, images, [-1], 'cls')[:, 0], expected[:, -1])
        if kind is VisionTransformer:
            torch.testing.assert_close(block_features(vit, images, [1, 2, 3], 'cls'), expected)


@pytest.mark.parametrize('out_type', ['cls_token', 'avg_featmap', 'raw'])
def test_several_poolings_come_from_one_pass(out_type, images):
    vit = make_vit(out_type=out_type)
    passes = []
    vit.register_forward_hook(lambda *_: passes.append(1))
    both = block_features(vit, images, [1, 3], ['mean', 'cls'])
    assert (both.shape, len(passes)) == ((4, 2, 2, 24), 1)
    for number, pooling in enumerate(['mean', 'cls']):
        torch.testing.assert_close(both[:, :, number], block_features(vit, images, [1, 3], pooling))


def test_an_ldae_has_patches_only_and_mae_a_class_token(images):
    assert poolings_of(make_ldae()) == ('mean',)
    with pytest.raises(ConfigError, match='pooling=cls: LDAEViT has mean only'):
        block_features(make_ldae(), images, [1], 'cls')
    mae = make_vit(MAEViT)
    torch.testing.assert_close(block_features(mae, images, None, 'cls')[:, 0], mae(images, mask=None)[-1][:, 0])
