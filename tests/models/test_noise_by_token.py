# SPDX-License-Identifier: Apache-2.0
"""l-DAE whose noise differs from token to token: what its ends coincide with, and how the parts take levels of tokens."""

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from torch import nn

from ldae.generation.denoising import sampler_of
from ldae.generation.samplers import SingleLevelError
from ldae.models import NoisySample
from ldae.registry import MODELS
from ldae.utils import ConfigError

ARCH = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
MAE = dict(type='ldae.RandomMasking', ratio=0.75, fill='mask', hides='noisiest')
HEADS = {
    'original': dict(type='ldae.OriginalImageHead'),
    'decoded': dict(type='ldae.DecodedImageHead'),
    'clean': dict(type='ldae.CleanLatentHead'),
    'noise': dict(type='ldae.NoiseHead'),
    'velocity': dict(type='ldae.LatentHead', prediction='clean', loss_space='velocity'),
    'min-snr': dict(type='ldae.LatentHead', prediction='velocity', min_snr=5.0, rank=3),
}


def build(noiser: dict | None = None, backbone: dict | None = None, **options) -> nn.Module:
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    tokenizer = dict(type='ldae.PatchPCATokenizer', img_size=16, patch_size=4, in_channels=1, latent_dim=6)
    noiser = dict(dict(type='ldae.TokenNoiser'), **(noiser or {}))
    backbone = dict(dict(type='ldae.LDAEViT', arch=ARCH), **(backbone or {}))
    model = MODELS.build(dict(dict(type='ldae.LDAE', tokenizer=tokenizer, noiser=noiser, backbone=backbone), **options))
    model.tokenizer.fit([torch.randn(100, 1, 16, 16)])
    for param in model.parameters():
        if param.requires_grad:
            nn.init.normal_(param, std=0.1)
    return model.train()


def loss_of(model: nn.Module, images: torch.Tensor, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    loss = model.loss(images)['loss']
    loss.backward()
    return loss.detach()


@pytest.mark.parametrize('head', HEADS)
def test_all_tokens_at_one_level_are_ldae_to_the_bit(head):
    """l-DAE's end of the axis: the same loss and the same gradients."""
    images, schedule = torch.randn(4, 1, 16, 16), dict(schedule='flow')
    ours = build(dict(schedule, share=1.0, loss_on='noised'), head=HEADS[head])
    plain = build(dict(schedule, type='ldae.GaussianNoiser'), head=HEADS[head])
    assert torch.equal(loss_of(ours, images), loss_of(plain, images))
    for (name, a), (_, b) in zip(ours.named_parameters(), plain.named_parameters(), strict=True):
        assert (a.grad is None and b.grad is None) or torch.equal(a.grad, b.grad), name


def test_maes_end_hides_exactly_the_noised_tokens_and_only_they_count():
    model = build(dict(share=0.75, level=999, loss_on='noised'), masking=MAE)
    images, seen, samples = torch.randn(5, 1, 16, 16), [], []
    model.backbone.patch_embed.register_forward_hook(lambda m, inputs, out: seen.append(inputs[0]))
    model.noiser.register_forward_hook(lambda m, inputs, out: samples.append(out))
    model.backbone.layers[0].register_forward_hook(lambda m, inputs, out: seen.append(inputs[0].shape[1]))
    torch.manual_seed(0)
    loss = float(model.loss(images)['loss'].detach())
    [sample], clean = samples, model.tokenizer.encode(images)
    assert seen[1] == 4
    torch.manual_seed(0)
    model.noiser(clean)
    visible = model.masking.draw(sample.z_t, model.noiser, sample.t).sort(dim=1).values
    for image in range(5):
        assert visible[image].tolist() == [i for i in range(16) if sample.t[image, i] == 0]
    kept = visible[..., None].expand(-1, -1, 6)
    assert torch.equal(sample.z_t.gather(1, kept), clean.gather(1, kept)), 'what the encoder sees is clean'
    # The same loss without the noiser: only mask tokens stand for the others, whatever their noise.
    z = clean + 100 * (sample.t > 0)[..., None]
    tokens = model.backbone(z, sample.t, None, visible)[-1]
    pred = model.neck(model.masking.restore(tokens, visible, z), sample.t)
    error = model.head.error(pred.float(), sample, images, model.tokenizer).detach().double().numpy()
    hidden = (sample.t > 0).numpy()
    weight = float(model.noiser.weight[999])
    assert loss == pytest.approx(weight * np.mean([error[i][hidden[i]].mean() for i in range(5)]), rel=1e-5)


@pytest.mark.parametrize('head', HEADS)
def test_a_loss_is_the_sum_of_its_tokens_each_at_its_own_level(head):
    model, images = build(dict(schedule='flow', share=0.5, rest='drawn'), head=HEADS[head]), torch.randn(3, 1, 16, 16)
    sample = model.noiser(model.tokenizer.encode(images))
    width = 16 if head in ('original', 'decoded') else 6
    pred = torch.randn(3, 16, width)
    found = model.head.sample_loss(pred, sample, images, model.tokenizer)
    expected = torch.zeros(3)
    for i in range(3):
        for j in range(16):  # all tokens of a batch at this token's level
            levels = model.noiser.levels(sample.t[i : i + 1, j])
            one = NoisySample(*(part[i : i + 1] for part in sample[:3]), sample.t[i : i + 1, j], *levels)
            error = model.head.error(pred[i : i + 1], one, images[i : i + 1], model.tokenizer)
            expected[i] += (levels[2][0, 0, 0] * error[0, j]) / 16
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    model.head.loss(pred, sample, images, model.tokenizer)
    assert [part.shape for part in model.head.recent] == [(3, 16), (3, 16)]


@pytest.mark.parametrize(
    ('noiser', 'options'),
    [
        (dict(share=1.0, level='each'), {}),
        (dict(share=0.25, rest='drawn'), {}),
        (dict(share=0.25, rest='drawn'), dict(backbone=dict(attend_by_level=True, reg_tokens=2))),
        (dict(share=0.5), dict(masking=dict(MAE, ratio=0.5, hides='random'))),
        (dict(share=0.25, level=100, rest=500), dict(masking=MAE)),
        (dict(share=0.25, rest='drawn'), dict(masking=MAE)),
        (dict(share=0.75, level=999, loss_on='noised'), dict(masking=MAE, backbone=dict(reg_tokens=4))),
        (dict(share=0.5), dict(backbone=dict(conditioned=False))),
    ],
)
def test_a_step_trains_every_parameter(noiser, options):
    model = build(noiser, **options)
    assert loss_of(model, torch.randn(4, 1, 16, 16)).isfinite()
    assert not [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]


def test_levels_go_with_the_tokens_that_are_seen():
    model, latents = build(), torch.randn(2, 16, 6)
    t, visible = torch.randint(1000, (2, 16)), torch.tensor([[3, 0, 9, 15], [1, 2, 4, 8]])
    model.backbone.eval()
    part = model.backbone(latents, t, None, visible)[-1]
    for image in range(2):  # an image that has no other tokens
        keep = visible[image]
        order = torch.cat([keep, torch.tensor([i for i in range(16) if i not in keep])])
        alone = model.backbone(latents[image : image + 1], t[image : image + 1], None, order[None, :4])[-1]
        torch.testing.assert_close(part[image], alone[0], rtol=1e-4, atol=1e-5)
    shifted = t.clone()
    shifted[:, 5] = (t[:, 5] + 400) % 1000  # a token that neither image shows
    assert torch.equal(model.backbone(latents, shifted, None, visible)[-1], part)
    shifted[0, 3] = (t[0, 3] + 400) % 1000
    assert not torch.allclose(model.backbone(latents, shifted, None, visible)[-1][0], part[0], atol=1e-3)


def test_a_class_label_goes_to_all_tokens():
    model = build(dict(share=0.5), num_classes=3, backbone=dict(num_classes=3))
    latents, t = torch.randn(2, 16, 6), torch.randint(1000, (2, 16))
    outs = [model.backbone(latents, t, torch.tensor(labels))[-1] for labels in ([0, 1], [0, 2])]
    assert torch.equal(outs[0][0], outs[1][0])
    assert ((outs[0][1] - outs[1][1]).abs().amax(-1) > 1e-4).all()


def test_features_validation_and_sampling_know_one_level_an_image():
    ours, plain = build(transfer_noise=True).eval(), build(dict(type='ldae.GaussianNoiser'), transfer_noise=True).eval()
    plain.load_state_dict(ours.state_dict())
    images = torch.randn(4, 1, 16, 16)
    assert torch.equal(ours.extract_feat(images)[-1], plain.extract_feat(images)[-1])
    for a, b in zip(ours.predict(images), plain.predict(images), strict=True):
        assert torch.equal(a.denoised, b.denoised)
    draws = [
        sampler_of(model, 'ddim', 3).run(
            torch.ones(1, 16, 6), lambda z, t, model=model: model.predict_latents(z, torch.tensor([t]))
        )
        for model in (ours, plain)
    ]
    assert torch.equal(*draws)


def test_levels_that_are_not_drawn_have_no_way_to_images():
    with pytest.raises(SingleLevelError, match='noiser.level=999 is the only level of noise'):
        sampler_of(build(dict(level=999), masking=MAE), 'ddim', 3)


@pytest.mark.parametrize(
    ('noiser', 'options', 'message'),
    [
        (
            dict(type='ldae.GaussianNoiser'),
            dict(backbone=dict(attend_by_level=True)),
            'attend_by_level needs noise that',
        ),
        (dict(share=1.0), dict(backbone=dict(attend_by_level=True)), 'TokenNoiser gives all of an image one level'),
        (dict(type='ldae.GaussianNoiser'), dict(masking=MAE), "hides='noisiest' needs noise that differs"),
        (dict(share=0.5), dict(masking=MAE), 'hides the 12 noisiest of 16 tokens, and of 8 the noise'),
        (dict(share=0.75, level=100, rest=500), dict(masking=MAE), 'of 4 the noise is higher'),
        ({}, dict(backbone=dict(attend_by_level=True, conditioned=False)), 'LDAEViT.attend_by_level needs blocks'),
        (
            {},
            dict(backbone=dict(attend_by_level=True), neck=dict(type='ldae.LDAEDecoder', conditioned=False)),
            'LDAEDecoder.attend_by_level needs blocks',
        ),
        ({}, dict(backbone=dict(reg_tokens=-1)), 'LDAEViT.reg_tokens=-1 is out of range'),
        ({}, dict(masking=dict(MAE, hides='clean')), "RandomMasking.hides='clean'"),
    ],
)
def test_what_does_not_fit_together_is_one_line(noiser, options, message):
    with pytest.raises(ConfigError, match=message) as error:
        build(noiser, **options)
    assert '\n' not in str(error.value)
