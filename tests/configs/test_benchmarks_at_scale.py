# SPDX-License-Identifier: Apache-2.0
"""The benchmarks at small scales: built, trained two steps from a checkpoint of that scale, and validated."""

import math
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS

from ldae.config import configs_root, load_config
from ldae.launch import build_runner, prepare
from ldae.utils import ConfigError

# The sizes of a kind differ in numbers only.
KINDS = [
    *('ldae_vit-b_linear', 'ldae_vit-b_finetune', 'ldae_vit-b_linear_1pct', 'ldae_vit-b_finetune_mmpretrain'),
    *('mae_vit-b_linear', 'mae_vit-half-l_256_finetune', 'mae_vit-b_linear_mmpretrain'),
    *('mocov3_vit-b_linear', 'mocov3_vit-b_finetune', 'simmim_vit-b_linear', 'simmim_vit-b_finetune'),
]
TRAINED = [
    *('ldae_vit-b_linear', 'ldae_vit-half-l_linear_1pct', 'ldae_vit-l_finetune'),
    *('mae_vit-b_linear', 'mae_vit-half-l_256_linear_10pct', 'mae_vit-l_256_finetune'),
    *('mocov3_vit-b_linear', 'mocov3_vit-l_finetune', 'simmim_vit-b_linear_1pct', 'dino_vit-l_finetune'),
]
SCALES = ('fashion-mnist_subset', 'fashion-mnist', 'cifar10', 'image-folder')
SUBSET = SCALES[0]


def load(name: str, scale: str = SUBSET, **options):
    return load_config(f'ldae::benchmarks/{name}.py', options, scale)


@pytest.mark.parametrize('scale', SCALES)
@pytest.mark.parametrize('name', KINDS)
def test_each_kind_of_benchmark_builds_at_every_scale(name, scale):
    cfg = load(name, scale)
    init_default_scope('mmpretrain')
    with torch.device('meta'):
        model = MODELS.build(dict(data_preprocessor=cfg.data_preprocessor, **cfg.model))
    frozen = [param for param in model.backbone.parameters() if param.requires_grad]
    assert ('linear' in name) is (not frozen)
    assert model.head.num_classes == cfg.data_preprocessor.num_classes == (1000 if scale == 'image-folder' else 10)


def test_sizes_and_recipes_keep_their_differences():
    small, half, large = (load(f'ldae_vit-{size}_finetune') for size in ('b', 'half-l', 'l'))
    assert small.model.backbone.arch.embed_dims < half.model.backbone.arch.embed_dims
    assert 2 * half.model.backbone.arch.num_layers == large.model.backbone.arch.num_layers
    assert [cfg.optim_wrapper.paramwise_cfg.layer_decay_rate for cfg in (small, half, large)] == [0.85, 0.85, 0.65]
    assert load('mae_vit-half-l_256_linear').model.backbone.arch == half.model.backbone.arch
    # The paper's average over 10 000 steps would be the first weights still, after 1560.
    assert small.default_hooks.ema.momentum == 0.01
    assert [augment.type for augment in small.model.train_cfg.augments] == ['Mixup', 'CutMix']


def test_low_shot_keeps_its_part_and_its_steps():
    one, ten, all_ = (load(f'ldae_vit-b_linear{suffix}') for suffix in ('_1pct', '_10pct', ''))
    assert [cfg.train_dataloader.dataset.get('fraction') for cfg in (one, ten, all_)] == [0.01, 0.1, None]
    assert one.train_cfg.max_epochs > ten.train_cfg.max_epochs == all_.train_cfg.max_epochs
    for cfg in (one, ten, all_):
        warm_up, cosine = cfg.param_scheduler
        assert warm_up.end == cosine.begin < cosine.end == cfg.train_cfg.max_epochs


def test_the_time_step_is_the_scales():
    assert load('ldae_vit-b_linear').model.backbone.timestep == 600
    assert load('ldae_vit-b_linear', 'cifar10').model.backbone.timestep == 10


def test_a_scale_without_benchmarks_says_so(tmp_path: Path):
    mine = tmp_path / 'mine.py'
    mine.write_text(
        f"_base_ = r'{configs_root() / 'scales' / SUBSET}.py'\nscale = dict(benchmarks=dict(_delete_=True))\n"
    )
    with pytest.raises(ConfigError, match=r"scale\.benchmarks has no entry for 'linear'"):
        load('ldae_vit-b_linear', mine)


@pytest.mark.parametrize('name', TRAINED)
def test_benchmark_takes_steps_at_small_scale(name, tmp_path):
    cfg = load(name)
    init_default_scope('mmpretrain')
    model = MODELS.build(dict(data_preprocessor=cfg.data_preprocessor, **cfg.model))
    torch.save(
        dict(state_dict={f'backbone.{key}': value for key, value in model.backbone.state_dict().items()}),
        tmp_path / 'pre.pth',
    )
    cfg.model.backbone.init_cfg.checkpoint = str(tmp_path / 'pre.pth')
    cfg.train_cfg.max_epochs = cfg.train_cfg.val_interval = 1
    cfg.train_dataloader.dataset.indices = 1000 if 'pct' in name else 64
    cfg.train_dataloader.batch_size = 32
    cfg.val_dataloader.dataset.indices = 32
    cfg.work_dir, cfg.experiment_name = str(tmp_path), name
    runner = build_runner(prepare(cfg))
    runner.train()
    losses, _ = runner.message_hub.get_scalar('train/loss').data
    assert runner.iter == len(losses) == {'_1pct': 1, '10pct': 4}.get(name[-5:], 2)
    assert all(map(math.isfinite, losses))
    assert 'val/accuracy/top1' in runner.message_hub.log_scalars
