# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn

from ldae.models import LDAEViT
from ldae.models.layers import patchify
from ldae.models.tokenizers.base import save_tokenizer
from ldae.utils import ConfigError

ARCH = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)


def config(**kwargs) -> dict:
    return dict(
        dict(
            type='ldae.LDAE',
            data_preprocessor=dict(mean=[100.0], std=[50.0]),
            tokenizer=dict(type='ldae.PatchPCATokenizer', img_size=16, patch_size=4, in_channels=1, latent_dim=6),
            noiser=dict(type='ldae.GaussianNoiser'),
            backbone=dict(type='ldae.LDAEViT', arch=ARCH),
            neck=dict(type='ldae.LDAEDecoder'),
            head=dict(type='ldae.OriginalImageHead'),
        ),
        **kwargs,
    )


def build(**kwargs) -> nn.Module:
    """A fitted model whose every weight matters."""
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    model = MODELS.build(config(**kwargs))
    model.tokenizer.fit([images(100)])
    for param in model.parameters():
        if param.requires_grad:
            nn.init.normal_(param, std=0.1)
    return model


def images(n: int = 4) -> torch.Tensor:
    return torch.randn(n, 1, 16, 16, generator=torch.Generator().manual_seed(n)).cumsum(2).cumsum(3) / 8


HEADS = ['NoiseHead', 'CleanLatentHead', 'DecodedImageHead', 'OriginalImageHead']


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize('input_type', ['image', 'latent'])
@pytest.mark.parametrize('conditioned', [True, False])
def test_a_step_of_every_variant_trains_every_parameter(head, input_type, conditioned):
    backbone = dict(type='ldae.LDAEViT', arch=ARCH, input_type=input_type, conditioned=conditioned)
    model = build(backbone=backbone, head=dict(type=f'ldae.{head}'))
    model.forward(images(), mode='loss')['loss'].backward()
    idle = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle


def test_loss_is_the_sentence_tokenize_noise_invert_encode_decode_score():
    model, x = build(), images()
    torch.manual_seed(3)
    loss = model.loss(x)['loss']
    torch.manual_seed(3)
    z0 = model.tokenizer.encode(x)
    sample = model.noiser(z0)
    # In full: through pixels, and with the patch embedding as the convolution that it is.
    noisy = model.tokenizer.decode(sample.z_t)
    tokens = model.backbone.patch_embed.projection(noisy).flatten(2).transpose(1, 2) + model.backbone.pos_embed
    cond = model.backbone.time_embed(sample.t)
    for layer in model.backbone.layers:
        tokens = layer(tokens, cond)
    residual = patchify(x, 4) - model.neck(tokens, sample.t)
    weights = 0.1 * residual.square().sum(-1) + 0.9 * (residual @ model.tokenizer.basis.T).square().sum(-1)
    expected = (sample.weight.flatten() * (weights / 16).mean(1)).mean()
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)


def test_noise_targets_weigh_all_steps_alike_and_clean_targets_by_signal_share():
    assert build(head=dict(type='ldae.NoiseHead')).noiser.weight.unique().tolist() == [1]
    weight = build(head=dict(type='ldae.CleanLatentHead')).noiser.weight
    assert (weight[0], weight[-1]) == (1, pytest.approx(1 / 3))
    noiser = dict(type='ldae.GaussianNoiser', weighting='uniform')
    assert build(noiser=noiser).noiser.weight.unique().tolist() == [1]


def test_labels_cannot_change_the_loss():
    model, x = build(), images()
    losses = []
    for samples in (None, ['anything', 'else', 'at', 'all']):
        torch.manual_seed(0)
        losses.append(model.loss(x, samples)['loss'])
    assert torch.equal(*losses)


def test_predict_gives_clean_noisy_and_denoised_with_the_same_noise_each_time():
    model, x = build(val_timesteps=(10, 900)), images()
    first, second = (model(x, mode='predict') for _ in range(2))
    assert [int(sample.timestep) for sample in first] == [10, 900, 10, 900]
    for a, b, image in zip(first, second, x, strict=True):
        assert torch.equal(a.clean, image)
        assert torch.equal(a.noisy, b.noisy)
        assert a.denoised.shape == image.shape
    mse = (model.to_pixels(x) - model.to_pixels(torch.stack([s.denoised for s in first]))).square().flatten(1).mean(1)
    expected = 20 * torch.log10(255 / mse.sqrt())
    torch.testing.assert_close(torch.stack([s.psnr for s in first]), expected)


def test_prediction_does_not_touch_the_training_stream():
    model = build()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    model(images(), mode='predict')
    assert torch.equal(torch.get_rng_state(), state)


def test_denoise_takes_one_level_or_one_per_image():
    model, x = build(), images(2)
    single = model.denoise(x, 500, torch.Generator().manual_seed(0))
    several = model.denoise(x, torch.tensor([500, 500]), torch.Generator().manual_seed(0))
    for a, b in zip(single, several, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(single[0], x)


def test_features_are_those_of_the_tokenized_clean_image():
    model, x = build(), images()
    torch.testing.assert_close(
        model.extract_feat(x)[-1], model.backbone(model.tokenizer.encode(x))[-1], atol=1e-5, rtol=1e-5
    )


def test_a_state_dict_restores_loss_and_features():
    source, x = build(), images()
    copy = MODELS.build(config())
    copy.load_state_dict(source.state_dict())
    assert copy.tokenizer.is_fitted
    losses = []
    for model in (source, copy):
        torch.manual_seed(1)
        losses.append(model.loss(x)['loss'])
    assert torch.equal(*losses)


def test_components_are_given_the_tokenizers_geometry():
    model = build()
    assert model.backbone.patch_embed.projection.weight.shape == (32, 1, 4, 4)
    assert model.neck.predict.out_features == 16
    assert len(model.neck.layers) == 2
    assert build(head=dict(type='ldae.NoiseHead')).neck.predict.out_features == 6


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(backbone=dict(type='ldae.LDAEViT', arch=ARCH, patch_size=8)), 'patch_size=8 contradicts 4'),
        (dict(backbone=dict(type='ldae.LDAEViT', arch=ARCH, img_size=32)), 'img_size=32 contradicts 16'),
        (dict(neck=dict(type='ldae.LDAEDecoder', in_dims=8)), 'in_dims=8 contradicts 32'),
        (dict(noiser=dict(type='ldae.GaussianNoiser', num_timesteps=5)), 'timestep=10 is out of range'),
        (dict(val_timesteps=(1000,)), 'val_timesteps=1000 is out of range'),
    ],
)
def test_contradictions_are_one_clear_line(options, message):
    init_default_scope('mmpretrain')
    with pytest.raises(ConfigError, match=message) as error:
        MODELS.build(config(**options))
    assert '\n' not in str(error.value)


def test_a_step_reads_nothing_back_from_the_device():
    """On the meta device there is nothing to read: any `.item()`, `bool()` or copy to the host raises."""
    model, x = build().to('meta'), images().to('meta')
    model.loss(x)['loss'].backward()
    assert model.backbone.layers[0].attn.qkv.weight.grad.is_meta


def labelled(labels: list[int]) -> list[DataSample]:
    return [DataSample().set_gt_label(label) for label in labels]


def test_class_conditioning_makes_the_loss_depend_on_the_labels_and_on_nothing_else():
    model, x, losses = build(num_classes=5, label_drop_prob=0.0), images(), []
    for labels in ([0, 1, 2, 3], [0, 1, 2, 3], [3, 2, 1, 0]):
        torch.manual_seed(0)
        losses.append(model.loss(x, labelled(labels))['loss'].item())
    assert losses[0] == losses[1] != losses[2]


def test_dropped_labels_are_the_label_none_at_the_given_rate():
    model = build(num_classes=5, label_drop_prob=0.1)
    torch.manual_seed(0)
    labels = model._labels(labelled([2] * 20000))
    assert set(labels.tolist()) == {2, 5}
    assert (labels == 5).float().mean().item() == pytest.approx(0.1, abs=0.01)
    all_dropped, x = build(num_classes=5, label_drop_prob=1.0), images()
    torch.manual_seed(0)
    loss = all_dropped.loss(x, labelled([0, 1, 2, 3]))['loss']
    torch.manual_seed(0)
    sample = all_dropped.noiser(all_dropped.tokenizer.encode(x))
    expected = all_dropped.head.loss(
        all_dropped._predict_target(sample.z_t, sample.t), sample, x, all_dropped.tokenizer
    )
    torch.testing.assert_close(loss, expected['loss'])


def test_both_halves_add_the_label_to_the_time_embedding():
    model = build(num_classes=5)
    for half in (model.backbone, model.neck):
        assert half.label_embed.weight.shape == (6, 8)
    backbone, t = model.backbone, torch.tensor([7])
    expected = backbone.time_embed(t) + backbone.label_embed.weight[3]
    torch.testing.assert_close(backbone._condition(t, torch.tensor([3]), t.device)[0], expected)


def test_class_conditioning_without_labels_is_one_clear_line():
    model = build(num_classes=5)
    for samples in (None, [DataSample() for _ in range(4)]):
        with pytest.raises(ConfigError, match='samples carry none: set with_label=True'):
            model.loss(images(), samples)


def test_transfer_of_a_class_conditioned_encoder_is_that_without_label():
    model, x = build(num_classes=5), images()
    plain = LDAEViT(ARCH, 16, 4, 1, conditioned=False)
    state = {k.removeprefix('backbone.'): v for k, v in model.state_dict().items() if k.startswith('backbone.')}
    assert not any(plain.load_state_dict(state))
    torch.testing.assert_close(plain(x)[0], model.extract_feat(x)[0], atol=1e-4, rtol=1e-4)


def test_noisy_transfer_takes_features_of_the_latent_at_the_transfer_time_step(tmp_path):
    model, x = build(transfer_noise=True), images()
    latents = model.tokenizer.encode(x)
    z_t = model.noiser.at_level(latents, 10, x)
    noise = (z_t - latents) / model.noiser.sigma[10]
    assert noise.std() == pytest.approx(1, abs=0.1)
    assert noise.flatten(1).corrcoef().fill_diagonal_(0).abs().max() < 0.35  # each image its own: 96 values
    expected = model.backbone(z_t)[0]
    torch.testing.assert_close(model.extract_feat(x)[0], expected)
    assert not torch.allclose(build().extract_feat(x)[0], expected, atol=1e-3)
    # The same within an encoder of its own, for mmpretrain's benchmarks.
    save_tokenizer(model.tokenizer, tmp_path / 'pca.pth')
    tokenizer = dict(config()['tokenizer'], checkpoint=str(tmp_path / 'pca.pth'))
    encoder = LDAEViT(ARCH, 16, 4, 1, conditioned=False, tokenizer=tokenizer, noiser=dict(type='ldae.GaussianNoiser'))
    state = {k.removeprefix('backbone.'): v for k, v in model.state_dict().items() if k.startswith('backbone.')}
    encoder.load_state_dict(state, strict=False)
    torch.testing.assert_close(encoder(x)[0], expected, atol=1e-4, rtol=1e-4)


def test_an_images_noisy_features_dont_depend_on_its_batch():
    model, x = build(transfer_noise=True), images()
    whole = model.extract_feat(x)[0]
    torch.testing.assert_close(model.extract_feat(x.flip(0))[0].flip(0), whole)
    torch.testing.assert_close(model.extract_feat(x[2:3])[0], whole[2:3])


def test_a_noiser_in_the_encoder_needs_a_tokenizer():
    with pytest.raises(ConfigError, match='a noiser needs a tokenizer'):
        LDAEViT(ARCH, 16, 4, 1, noiser=dict(type='ldae.GaussianNoiser'))


@pytest.mark.parametrize('input_type', ['image', 'latent'])
def test_a_tokenizer_that_is_not_linear_goes_through_pixels(input_type):
    """What can't be folded is decoded: the same numbers as with the fold, by the other way."""
    folded = build(backbone=dict(type='ldae.LDAEViT', arch=ARCH, input_type=input_type))
    plain = build(backbone=dict(type='ldae.LDAEViT', arch=ARCH, input_type=input_type))
    plain.load_state_dict(folded.state_dict())
    plain.backbone.patch_embed.patch_map = None
    losses = []
    for model in (folded, plain):
        torch.manual_seed(0)
        losses.append(model.loss(images())['loss'])
    torch.testing.assert_close(*losses, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(plain.extract_feat(images())[0], folded.extract_feat(images())[0], atol=1e-4, rtol=1e-4)


def test_a_decoder_is_the_encoder_s_size_but_for_the_numbers_that_are_given():
    small = dict(embed_dims=16, num_layers=1)
    neck = build(neck=dict(type='ldae.LDAEDecoder', arch=small)).neck
    assert neck.embed.weight.shape == (16, 32)  # as MAE's decoder_embed
    assert len(neck.layers) == 1
    assert neck.layers[0].ffn.layers[0][0].weight.shape == (32, 16)
    assert neck.layers[0].attn.num_heads == 2
    deep = build(neck=dict(type='ldae.LDAEDecoder', arch=dict(num_layers=3))).neck
    assert len(deep.layers) == 3
    assert isinstance(deep.embed, nn.Identity)
    with pytest.raises(ConfigError, match="no 'depth'"):
        build(neck=dict(type='ldae.LDAEDecoder', arch=dict(depth=3)))
