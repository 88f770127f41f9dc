# SPDX-License-Identifier: Apache-2.0
import pytest
import timm
import torch
from mmengine.registry import init_default_scope
from mmpretrain.models.utils import build_2d_sincos_position_embedding
from mmpretrain.registry import MODELS
from torch import nn

from ldae.models import LDAEViT
from ldae.utils import ConfigError

ARCH = dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64)


def encoder(**kwargs) -> LDAEViT:
    """A small encoder whose every weight matters."""
    torch.manual_seed(0)
    model = LDAEViT(**dict(dict(arch=ARCH, img_size=32, patch_size=8), **kwargs)).eval()
    for param in model.parameters():
        if param.requires_grad:
            nn.init.normal_(param, std=0.2)
    return model


@pytest.mark.parametrize(
    ('arch', 'millions', 'blocks'), [('base', 86, 12), ('half-large', 152, 12), ('large', 304, 24)]
)
def test_named_sizes_have_the_papers_parameter_counts(arch, millions, blocks):
    with torch.device('meta'):
        model = LDAEViT(arch, conditioned=False)
    assert len(model.layers) == blocks
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize(
    ('out_type', 'shape'), [('raw', (2, 16, 32)), ('avg_featmap', (2, 32)), ('featmap', (2, 32, 4, 4))]
)
def test_output_shapes(out_type, shape):
    images = torch.randn(2, 3, 32, 32)
    assert encoder(out_type=out_type)(images)[-1].shape == shape


def test_average_pooling_is_the_mean_of_the_tokens():
    images = torch.randn(2, 3, 32, 32)
    pooled, raw = encoder(out_type='avg_featmap')(images)[-1], encoder()(images)[-1]
    torch.testing.assert_close(pooled, raw.mean(dim=1))


def test_out_indices_give_the_features_of_several_blocks():
    outs = encoder(out_indices=(0, 2))(torch.randn(2, 3, 32, 32))
    assert len(outs) == 2
    assert not torch.equal(*outs)


def test_without_t_the_transfer_time_step_is_used():
    model, images = encoder(timestep=7), torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(images)[0], model(images, torch.tensor([7, 7]))[0])
    assert not torch.allclose(model(images)[0], model(images, torch.tensor([8, 8]))[0])


def test_unconditioned_encoder_is_timm_s_vit():
    ours = encoder(conditioned=False, final_norm=True, out_type='avg_featmap')
    theirs = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=2, mlp_ratio=2, class_token=False,
        global_pool='avg', num_classes=0, fc_norm=False,
    ).eval()  # fmt: skip
    names = {
        'ffn.layers.0.0': 'mlp.fc1',
        'ffn.layers.1': 'mlp.fc2',
        'layers.': 'blocks.',
        'ln1': 'norm1',
        'ln2': 'norm2',
    }
    state = {}
    for key, value in ours.state_dict().items():
        for old, new in names.items():
            key = key.replace(old, new)
        state[key.replace('patch_embed.projection', 'patch_embed.proj')] = value
    state['norm.weight'], state['norm.bias'] = state.pop('norm1.weight'), state.pop('norm1.bias')
    theirs.load_state_dict(state)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(images)[0], theirs(images), atol=1e-4, rtol=1e-4)


def test_positions_of_an_oblong_image_are_those_of_the_square_around_it():
    square = LDAEViT(ARCH, 24, 4, 1, conditioned=False).pos_embed.detach().unflatten(1, (6, 6))
    oblong = LDAEViT(ARCH, (16, 24), 4, 1, conditioned=False).pos_embed.detach().unflatten(1, (4, 6))
    assert torch.equal(oblong, square[:, :4])


def test_positions_are_fixed_sin_cos_and_survive_initialisation():
    model = encoder()
    model.init_weights()
    assert torch.equal(model.pos_embed.data, build_2d_sincos_position_embedding((4, 4), 32))
    assert not model.pos_embed.requires_grad


def test_learned_positions_start_as_the_fixed_ones_and_are_trained():
    model = LDAEViT(arch=ARCH, img_size=32, patch_size=8, learn_positions=True)
    model.init_weights()
    assert torch.equal(model.pos_embed, LDAEViT(arch=ARCH, img_size=32, patch_size=8).pos_embed)
    model(torch.randn(1, 3, 32, 32))[0].sum().backward()
    assert model.pos_embed.grad.abs().sum() > 0


def test_a_fresh_encoder_passes_its_embedding_through():
    model = encoder()
    model.init_weights()
    images = torch.randn(2, 3, 32, 32)
    expected = model.patch_embed(images)[0] + model.pos_embed
    torch.testing.assert_close(model(images, torch.tensor([3, 900]))[0], expected)


@pytest.mark.parametrize('timestep', [0, 10, 999])
def test_a_conditioned_checkpoint_merges_into_a_plain_vit(timestep):
    source = encoder(timestep=timestep)
    plain = LDAEViT(ARCH, 32, 8, conditioned=False, timestep=timestep).eval()
    assert not any(plain.load_state_dict(source.state_dict()))
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(plain(images)[0], source(images)[0], atol=1e-4, rtol=1e-4)


def test_other_image_sizes_work_at_run_time_and_on_load():
    model = encoder()
    assert model(torch.randn(1, 3, 48, 64))[0].shape == (1, 48, 32)
    larger = LDAEViT(ARCH, 64, 8)
    larger.load_state_dict(model.state_dict())
    assert larger(torch.randn(1, 3, 64, 64))[0].shape == (1, 64, 32)


def test_image_classifier_takes_it_unchanged_with_a_pretrained_prefix(tmp_path):
    init_default_scope('mmpretrain')
    source = encoder()
    state = {f'backbone.{key}': value for key, value in source.state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'pre.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'pre.pth'), prefix='backbone.')
    backbone = dict(type='ldae.LDAEViT', arch=ARCH, img_size=32, patch_size=8, out_type='avg_featmap', frozen_stages=3)
    classifier = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(backbone, init_cfg=init_cfg),
            neck=dict(type='ClsBatchNormNeck', input_features=32),
            head=dict(type='LinearClsHead', num_classes=4, in_channels=32),
        )
    )
    classifier.init_weights()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(classifier.backbone(images)[0], source(images)[0].mean(dim=1))
    trainable = {name.split('.')[0] for name, p in classifier.named_parameters() if p.requires_grad}
    assert trainable == {'head'}


def test_layer_depths_rise_from_stem_to_head():
    model = encoder()
    depth = {name: model.get_layer_depth(f'backbone.{name}', 'backbone.')[0] for name, _ in model.named_parameters()}
    assert {depth[n] for n in depth if n.startswith(('patch_embed', 'pos_embed', 'time_embed'))} == {0}
    assert [depth[f'layers.{i}.attn.qkv.weight'] for i in range(3)] == [1, 2, 3]
    assert model.get_layer_depth('head.fc.weight', 'backbone.') == (4, 5)


def test_freezing_all_stages_leaves_nothing_to_train():
    assert not any(p.requires_grad for p in LDAEViT(ARCH, 32, 8, frozen_stages=3).parameters())


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(arch='bas'), "did you mean 'base'"),
        (dict(arch=dict(embed_dims=32)), "arch lacks .'num_layers', 'num_heads'"),
        (dict(input_type='pixels'), "input_type='pixels' is unknown"),
        (dict(input_type='latent'), 'needs latent_dim'),
        (dict(timestep=1000), 'timestep=1000 is out of range.*between 0 and 999'),
        (dict(out_type='cls_token'), "out_type='cls_token' is unknown"),
        (dict(frozen_stages=13), 'frozen_stages=13 is out of range'),
    ],
)
def test_wrong_options_are_one_clear_line(options, message):
    with pytest.raises(ConfigError, match=message) as error, torch.device('meta'):
        LDAEViT(**options)
    assert '\n' not in str(error.value)
