# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope

from ldae.models import GaussianNoiser, RandomMasking
from ldae.registry import MODELS
from ldae.utils import ConfigError

ARCH = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)


def masking(**options) -> RandomMasking:
    torch.manual_seed(0)
    module = RandomMasking(**dict(dict(embed_dims=8, grid=(4, 4), latent_dim=3), **options))
    module.init_weights()
    return module


def build(masking: dict | None) -> torch.nn.Module:
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    tokenizer = dict(type='ldae.PatchPCATokenizer', img_size=16, patch_size=4, in_channels=1, latent_dim=6)
    cfg = dict(type='ldae.LDAE', tokenizer=tokenizer, noiser=dict(type='ldae.GaussianNoiser'))
    model = MODELS.build(dict(cfg, backbone=dict(type='ldae.LDAEViT', arch=ARCH), masking=masking))
    model.tokenizer.fit([torch.randn(100, 1, 16, 16)])
    for param in model.parameters():
        if param.requires_grad:
            torch.nn.init.normal_(param, std=0.1)
    return model


def test_each_image_keeps_distinct_tokens_and_all_are_kept_equally_often():
    visible = masking().draw(torch.zeros(4000, 16, 3), GaussianNoiser())
    assert visible.shape == (4000, 4)
    assert (visible.sort(dim=1).values.diff(dim=1) > 0).all()
    counts = torch.bincount(visible.flatten(), minlength=16)
    assert ((counts - 1000) ** 2 / 1000).sum() < 37.7  # chi-square, 15 degrees of freedom, 99.9%


@pytest.mark.parametrize('fill', ['noisy', 'mask'])
def test_restored_tokens_are_those_of_a_loop_over_places(fill):
    module, latents = masking(fill=fill), torch.randn(2, 16, 3)
    visible, tokens = torch.tensor([[3, 0, 9, 15], [1, 2, 4, 8]]), torch.randn(2, 4, 8)
    restored = module.restore(tokens, visible, latents).detach().numpy()
    for image in range(2):
        for place in range(16):
            if place in visible[image]:
                expected = tokens[image, visible[image].tolist().index(place)].numpy()
            elif fill == 'noisy':
                weight, bias = module.embed.weight.detach().numpy(), module.embed.bias.detach().numpy()
                expected = weight @ latents[image, place].numpy() + bias
            else:
                expected = module.mask_token[0, 0].detach().numpy()
            expected = expected + module.positions[0, place].numpy()
            np.testing.assert_allclose(restored[image, place], expected, rtol=1e-5, atol=1e-6)


def test_an_encoder_of_a_part_equals_an_encoder_of_an_image_that_has_no_more():
    model = build(dict(type='ldae.RandomMasking')).eval()
    latents, t = torch.randn(3, 16, 6), torch.tensor([1, 500, 999])
    every = torch.arange(16).expand(3, -1)
    whole = model.backbone(latents, t)[-1]
    order = torch.stack([torch.randperm(16) for _ in range(3)])
    part = model.backbone(latents, t, None, order)[-1]
    torch.testing.assert_close(model.backbone(latents, t, None, every)[-1], whole)
    # Attention knows no order: a permutation of the tokens permutes the output.
    torch.testing.assert_close(part, whole.gather(1, order[..., None].expand(-1, -1, 32)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('fill', ['noisy', 'mask'])
def test_a_step_trains_every_parameter_on_a_quarter_of_the_tokens(fill):
    model = build(dict(type='ldae.RandomMasking', fill=fill)).train()
    seen = []
    model.backbone.layers[0].register_forward_hook(lambda m, inputs, out: seen.append(inputs[0].shape[1]))
    model.neck.layers[0].register_forward_hook(lambda m, inputs, out: seen.append(inputs[0].shape[1]))
    model.loss(torch.randn(4, 1, 16, 16))['loss'].backward()
    assert seen == [4, 16]
    assert not [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]


def test_features_and_validation_are_of_all_tokens_and_always_alike():
    model = build(dict(type='ldae.RandomMasking')).eval()
    images = torch.randn(2, 1, 16, 16)
    assert model.extract_feat(images)[-1].shape == (2, 16, 32)
    first, second = model.predict(images)[0].denoised, model.predict(images)[0].denoised
    assert torch.equal(first, second)
    plain = build(None).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith('masking.')})
    assert torch.equal(plain.extract_feat(images)[-1], model.extract_feat(images)[-1])


@pytest.mark.parametrize(
    ('options', 'message'),
    [(dict(ratio=1.5), 'ratio=1.5'), (dict(ratio=0.99), 'leaves none of 16'), (dict(fill='zero'), "fill='zero'")],
)
def test_a_wrong_option_is_one_line(options, message):
    with pytest.raises(ConfigError, match=message):
        masking(**options)


def test_an_option_that_contradicts_the_other_components_is_one_line():
    with pytest.raises(ConfigError, match='masking ldae.RandomMasking: latent_dim=5 contradicts 6'):
        build(dict(type='ldae.RandomMasking', latent_dim=5))
