# SPDX-License-Identifier: Apache-2.0
"""docs/transfer.md: what of its configs is ours builds, loads and is trained at the rates that the page says.

mmdetection and mmsegmentation aren't needed: their parts of the configs are left out.
"""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import Registry, init_default_scope
from pages import ROOT, blocks, sections
from torch import nn

from ldae.config import configs_root, load_config
from ldae.export import export_encoder
from ldae.models import LDAEViT
from ldae.registry import MODELS

PAGE = ROOT / 'docs' / 'transfer.md'
CONFIGS = {block.file: block.text for block in blocks(PAGE, 'py') if '_base_' in block.text}
SMALL = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A small l-DAE as pre-training leaves it, with weights that all matter."""
    options = {'backbone.arch': dict(_delete_=True, **SMALL), 'tokenizer.img_size': 32, 'tokenizer.latent_dim': 8}
    cfg = load_config(configs_root() / 'ldae/vit-b_pca.py', {f'model.{k}': v for k, v in options.items()})
    torch.manual_seed(0)
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    for param in model.backbone.parameters():
        if param.requires_grad:
            nn.init.normal_(param, std=0.2)
    model.tokenizer.fit([torch.randn(32, 3, 32, 32)])
    path = tmp_path / 'epoch_400.pth'
    torch.save(dict(meta=dict(cfg=cfg.pretty_text), state_dict=model.state_dict()), path)
    return path


def read(text: str, tmp_path: Path) -> Config:
    """A config without its base, which belongs to another library."""
    lines = [line for line in text.splitlines() if not line.startswith('_base_')]
    (tmp_path / 'read.py').write_text('\n'.join(lines))
    return Config.fromfile(tmp_path / 'read.py', import_custom_modules=False)


@pytest.fixture
def another_library():
    """The registry that mmdetection's or mmsegmentation's models are built by."""
    registry = Registry('model', parent=ROOT_MODELS, scope='another', locations=[])
    yield registry
    ROOT_MODELS._children.pop('another')


def build(backbone: dict, registry: Registry, checkpoint: Path, **smaller) -> nn.Module:
    backbone = dict(backbone, **smaller)
    backbone.pop('_delete_')
    backbone['init_cfg'] = dict(backbone['init_cfg'], checkpoint=str(checkpoint))
    init_default_scope('another')
    model = registry.build(backbone)
    model.init_weights()
    model.eval()  # mmpretrain's returns None
    return model


def test_there_is_a_config_for_each_of_the_two():
    assert list(CONFIGS) == ['ldae_mask_rcnn.py', 'ldae_upernet.py']


@pytest.mark.parametrize('name', CONFIGS)
def test_the_backbone_is_built_by_another_library_and_loads_a_checkpoint(name, tmp_path, another_library, checkpoint):
    cfg = read(CONFIGS[name], tmp_path).model.backbone
    levels = len(cfg.get('out_indices', [11]))
    assert all(0 <= index < 12 for index in cfg.get('out_indices', []))
    model = build(cfg, another_library, checkpoint, arch=SMALL, img_size=64, out_indices=[0, 1][-levels:])
    plain = LDAEViT(SMALL, 64, 16, conditioned=False, out_type='raw').eval()
    state = torch.load(checkpoint, weights_only=True)['state_dict']
    assert not any(plain.load_state_dict({k[9:]: v for k, v in state.items() if k.startswith('backbone.')}))
    images = torch.randn(1, 3, 48, 80)
    torch.testing.assert_close(model(images)[-1].flatten(2).transpose(1, 2), plain(images)[-1])
    assert model.layers[0].ln1.bias.any()  # as the page tells to look


def test_the_named_size_of_the_configs_is_built():
    for text in CONFIGS.values():
        assert "arch='base'" in text
    with torch.device('meta'):
        assert len(LDAEViT('base', 512, conditioned=False, out_indices=[3, 5, 7, 11]).layers) == 12
        assert len(LDAEViT('large', 512, conditioned=False, out_indices=[7, 11, 15, 23]).layers) == 24


def test_the_exported_checkpoint_gives_the_same_maps(tmp_path, another_library, checkpoint):
    (text,) = [block.text for block in blocks(sections(PAGE, 2)['Without ldae: the exported checkpoint'], 'py')]
    backbone = read(text, tmp_path).backbone
    exported = tmp_path / 'vit-b_ldae.pth'
    export_encoder(checkpoint, 'mmpretrain', exported)
    stock = build(backbone, another_library, exported, arch=SMALL, img_size=64)
    cfg = read(CONFIGS['ldae_mask_rcnn.py'], tmp_path).model.backbone
    ours = build(cfg, another_library, checkpoint, arch=SMALL, img_size=64)
    assert type(stock).__module__.startswith('mmpretrain')
    images = torch.randn(1, 3, 48, 64)
    torch.testing.assert_close(stock(images)[-1], ours(images)[-1], rtol=1e-4, atol=1e-4)


def test_the_types_are_found_one_level_deep_only(another_library):
    assert another_library.get('mmpretrain.ldae.LDAEViT') is LDAEViT
    assert another_library.get('ldae.LDAEViT') is None


@pytest.mark.parametrize(('name', 'decay'), [('ldae_mask_rcnn.py', 0.7), ('ldae_upernet.py', 0.65)])
def test_learning_rates_fall_by_layer_and_norms_and_biases_do_not_decay(name, decay, tmp_path):
    cfg = read(CONFIGS[name], tmp_path)
    with torch.device('meta'):
        model = nn.Module()
        model.backbone = LDAEViT('base', conditioned=False, out_type='featmap')
        model.neck = nn.Sequential(nn.Conv2d(768, 8, 1), nn.BatchNorm2d(8))
    optimizer = dict(type='AdamW', lr=1.0, weight_decay=0.1)
    paramwise = {key: value for key, value in cfg.optim_wrapper.paramwise_cfg.items() if key != '_delete_'}
    wrapper = build_optim_wrapper(
        model, dict(type='OptimWrapper', optimizer=optimizer, constructor=cfg.optim_wrapper.constructor,
                    paramwise_cfg=paramwise)
    )  # fmt: skip
    names = {id(param): name for name, param in model.named_parameters()}
    groups = {names[id(param)]: group for group in wrapper.optimizer.param_groups for param in group['params']}
    trained = {name for name, param in model.named_parameters() if param.requires_grad}
    assert set(groups) >= trained
    for name in trained:
        layer = int(name.split('.')[2]) if name.startswith('backbone.layers.') else None
        rate = decay ** (12 - layer) if layer is not None else decay**13 if 'patch_embed' in name else 1.0
        assert groups[name]['lr'] == pytest.approx(rate), name
        if layer is not None or name.startswith('neck.'):
            decays = model.get_parameter(name).ndim > 1
            assert groups[name]['weight_decay'] == (0.1 if decays else 0), name


def test_a_checkpoint_of_another_width_leaves_a_fresh_encoder_without_an_error(tmp_path, another_library, checkpoint):
    cfg = read(CONFIGS['ldae_upernet.py'], tmp_path).model.backbone
    wider = dict(SMALL, embed_dims=64)
    model = build(cfg, another_library, checkpoint, arch=wider, img_size=64, out_indices=[1])
    assert not model.layers[0].ln1.bias.any()
