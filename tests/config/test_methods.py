# SPDX-License-Identifier: Apache-2.0
"""What differs between methods of pre-training, at any size, scale and on any data."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope

from ldae.config import load_config
from ldae.config.methods import FACTS, METHODS, arch_of, geometry_of, method_like, method_of
from ldae.registry import DATASETS, MODELS
from ldae.utils import ConfigError

DEMO = 'ldae::ldae/demo_fashion-mnist.py'
SCALES = ('fashion-mnist_subset', 'fashion-mnist', 'cifar10', 'image-folder')
NAMES = sorted(METHODS)
OTHERS = [name for name in NAMES if name != 'ldae']
JOINT = [name for name in NAMES if FACTS[name].views > 1]


def build(cfg) -> torch.nn.Module:
    if method_of(cfg) == 'dino':
        pytest.importorskip('lightly')
    init_default_scope('mmpretrain')
    return MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))


@pytest.mark.parametrize('name', NAMES)
def test_a_config_knows_its_method(name):
    assert method_of(load_config(METHODS[name])) == name


def test_other_configs_have_none():
    assert method_of(load_config('ldae::benchmarks/mae_vit-b_linear.py')) is None
    assert method_of(load_config('ldae::tokenizers/patch-ae_d16.py')) is None


@pytest.mark.parametrize('scale', SCALES)
@pytest.mark.parametrize('name', OTHERS)
def test_a_scale_brings_encoder_heads_and_views_to_its_size(name, scale):
    cfg, ldae = (load_config(path, scale=scale) for path in (METHODS[name], METHODS['ldae']))
    assert dict(cfg.model.backbone.arch) == dict(ldae.model.backbone.arch)
    assert geometry_of(cfg) == geometry_of(ldae)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(FACTS[name].rate * ldae.optim_wrapper.optimizer.lr)
    assert cfg.val_dataloader is None
    size, _, channels = geometry_of(cfg)
    build(cfg).extract_feat(torch.zeros(2, channels, size, size))


@pytest.mark.parametrize('name', OTHERS)
def test_a_method_like_another_has_its_encoder_data_and_schedule(name):
    demo = load_config(DEMO)
    cfg = method_like(name, copy.deepcopy(demo), load_config(METHODS[name]))
    assert method_of(cfg) == name
    assert dict(arch_of(cfg.model.backbone)[1]) == dict(demo.model.backbone.arch)
    assert geometry_of(cfg) == geometry_of(demo)
    assert (cfg.train_cfg, cfg.param_scheduler) == (demo.train_cfg, demo.param_scheduler)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(FACTS[name].rate * demo.optim_wrapper.optimizer.lr)
    assert cfg.test_dataloader == demo.val_dataloader
    batch = DATASETS.build(dict(cfg.train_dataloader.dataset, indices=4)).__getitems__([0, 1, 2])
    views = batch['inputs'] if name in JOINT else [batch['inputs']]
    assert len(views) >= FACTS[name].views
    assert views[0].shape == (3, 1, 28, 28)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('other', ['mocov3', 'mae'])
def test_a_method_can_follow_any_other(name, other):
    followed = load_config(METHODS[other], scale='image-folder')
    cfg = method_like(name, copy.deepcopy(followed), load_config(METHODS[name]))
    assert geometry_of(cfg) == geometry_of(followed)
    assert arch_of(cfg.model.backbone)[1] == arch_of(followed.model.backbone)[1]
    rates = [each.optim_wrapper.optimizer.lr / FACTS[method].rate for each, method in ((cfg, name), (followed, other))]
    assert rates[0] == pytest.approx(rates[1])
    kinds = [step.type for step in cfg.train_dataloader.dataset.pipeline]
    assert ('MultiView' in kinds) is (name in JOINT)
    assert kinds[0] == 'ldae.LoadImage'
    build(cfg)


def test_no_method_learns_from_latents():
    cfg = load_config('ldae::ldae/vit-b_pca.py')
    cfg.train_dataloader.dataset = dict(type='ldae.LatentDataset')
    assert method_like('mocov3', cfg, load_config(METHODS['mocov3'])) is None


def test_views_that_data_in_memory_cannot_have_are_named(tmp_path: Path):
    own = tmp_path / 'own.py'
    own.write_text(
        f"_base_ = '{METHODS['simclr']}'\n"
        "multi = dict(type='MultiView', num_views=2, transforms=[[dict(type='RandomErasing')]])\n"
        "pipeline = [dict(type='ldae.LoadImage'), multi, dict(type='PackInputs')]\n"
        'train_dataloader = dict(dataset=dict(pipeline=pipeline))\n'
    )
    with pytest.raises(ConfigError, match='no RandomErasing'):
        load_config(own, scale='fashion-mnist_subset')


def test_pipelines_follow_another_image_size(tmp_path: Path):
    own = tmp_path / 'own.py'
    own.write_text(f"_base_ = '{METHODS['mocov3']}'\nmodel = dict(backbone=dict(img_size=112))\n")
    multi = load_config(own).train_dataloader.dataset.pipeline[1]
    assert [steps[0].scale for steps in multi.transforms] == [112, 112]
