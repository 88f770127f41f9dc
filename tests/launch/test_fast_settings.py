# SPDX-License-Identifier: Apache-2.0
import pytest
from mmengine.config import Config

from ldae.config import configs_root, load_config
from ldae.launch import LaunchOptions, prepare
from ldae.launch.prepare import fuse_optimizer, use_fast_settings
from ldae.utils import ConfigError


@pytest.mark.parametrize('name', ['ldae/vit-b_pca', 'mae/vit-b_300e', 'benchmarks/ldae_vit-b_finetune'])
def test_fast_merges_its_fragment_and_leaves_the_rest(name, monkeypatch):
    monkeypatch.setattr('ldae.utils.device.has_bf16', lambda _: True)
    cfg = load_config(f'ldae::{name}.py')
    plain = load_config(f'ldae::{name}.py')
    prepare(cfg, LaunchOptions(fast=True))
    assert cfg.optim_wrapper.type == 'ldae.AutocastOptimWrapper'
    assert 'loss_scale' not in cfg.optim_wrapper
    assert cfg.env_cfg.cudnn_benchmark
    assert cfg.default_hooks.keys() - plain.default_hooks.keys() == {'compile_blocks', 'matmul_precision'}
    assert cfg.train_dataloader.dataset.fast_resize
    assert cfg.model == plain.model
    assert cfg.optim_wrapper.optimizer.betas == plain.optim_wrapper.optimizer.betas


def test_what_the_documentation_tells_to_inherit_is_what_fast_merges(tmp_path):
    lines = Config.fromfile(configs_root() / '_base_' / 'fast.py').pretty_text
    lines += 'train_dataloader = dict(dataset=dict(fast_resize=True))\n'
    (tmp_path / 'mine.py').write_text(f"_base_ = 'ldae::ldae/vit-b_pca.py'\n{lines}")
    merged = load_config('ldae::ldae/vit-b_pca.py')
    use_fast_settings(merged)
    assert load_config(tmp_path / 'mine.py').to_dict() == merged.to_dict()


def test_fast_resizes_by_torch_where_the_data_set_can_and_the_config_does_not_object():
    demo = load_config('ldae::ldae/demo_fashion-mnist.py')
    use_fast_settings(demo)
    assert 'fast_resize' not in demo.train_dataloader.dataset
    exact = load_config('ldae::ldae/vit-b_pca.py', {'train_dataloader.dataset.fast_resize': False})
    use_fast_settings(exact)
    assert not exact.train_dataloader.dataset.fast_resize


@pytest.mark.parametrize(
    ('optimizer', 'fused'),
    [
        (dict(type='AdamW', lr=1), True),
        (dict(type='Adam', lr=1), True),
        (dict(type='AdamW', lr=1, fused=False), False),
        (dict(type='AdamW', lr=1, foreach=True), None),
        (dict(type='LARS', lr=1), None),
    ],
)
def test_adam_is_fused_unless_the_config_chooses(optimizer, fused):
    cfg = Config(dict(optim_wrapper=dict(optimizer=optimizer)))
    fuse_optimizer(cfg)
    assert cfg.optim_wrapper.optimizer.get('fused') is fused


def test_a_config_that_trains_nothing_is_one_line():
    with pytest.raises(ConfigError, match='--fast is for training'):
        use_fast_settings(Config(dict(model=dict(type='X'))))
    fuse_optimizer(Config(dict(model=dict(type='X'))))
