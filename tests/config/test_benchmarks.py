# SPDX-License-Identifier: Apache-2.0
"""Benchmarks fitted to an encoder and to data; what is of the papers' size stays as its config says."""

import copy
import math
from pathlib import Path

import pytest
from mmengine.config import Config

from ldae.config import load_config
from ldae.config.benchmarks import fit_encoder, fit_features, fit_schedule, set_classes
from ldae.config.methods import method_like
from ldae.config.scale import set_epochs
from ldae.utils import ConfigError

FOLDED = {'backbone.patch_embed.patch_map.encoder': None}
KINDS = ('linear', 'finetune', 'linear_1pct', 'linear_10pct')
IMAGES = dict(linear=1281167, finetune=1281167, linear_1pct=12811, linear_10pct=128116)
PRETRAINED = dict(ldae='ldae/vit-{}_pca', mae='mae/vit-{}_256_1600e')


def load(kind: str, stem: str = 'ldae_vit-b') -> Config:
    return load_config(f'ldae::benchmarks/{stem}_{kind}.py')


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('size', ['b', 'half-l', 'l'])
@pytest.mark.parametrize('method', ['ldae', 'mae'])
def test_the_named_sizes_on_imagenet_are_what_their_configs_say(method, size, kind):
    """Fitted to the pre-training of its own size and to as many images as ImageNet's, a benchmark is unchanged."""
    if (method, size) == ('mae', 'half-l'):
        pretrained = load_config('ldae::mae/vit-half-l_256_1600e.py')
    else:
        pretrained = load_config(f'ldae::{PRETRAINED[method].format(size)}.py')
    stem = f'{method}_vit-{size}' + ('_256' if method == 'mae' else '')
    cfg = load(kind, stem)
    expected = copy.deepcopy(cfg)
    expected.model.backbone.arch = pretrained.model.backbone.arch  # a name, and 'b' for 'base'
    if method == 'ldae':
        expected.model.backbone.in_channels = 3
    fit_encoder(cfg, pretrained)
    fit_features(cfg, pretrained, FOLDED, 'tokenizer.pth')
    if method == 'mae':
        del cfg.model.backbone.in_channels
        for loader in (cfg.train_dataloader, expected.train_dataloader):
            loader.num_workers = 8
        for loader in (*(cfg.val_dataloader, cfg.test_dataloader), expected.val_dataloader, expected.test_dataloader):
            loader.num_workers = 4
    else:
        del cfg.model.backbone.in_channels, expected.model.backbone.in_channels
    set_classes(cfg, 1000)
    fit_schedule(cfg, IMAGES[kind], 8)
    assert cfg.to_dict() == expected.to_dict()


@pytest.mark.parametrize(
    ('kind', 'images', 'batch', 'lr'),
    [
        ('linear', 608, 64, 0.4 * math.sqrt(64 / 1024)),
        ('linear', 20_000, 2048, 0.4 * math.sqrt(2048 / 1024)),
        ('finetune', 608, 64, 4e-3 * math.sqrt(64 / 1024)),
        ('finetune', 20_000, 1024, 4e-3),
        ('linear_1pct', 8, 4, 0.4 * math.sqrt(4 / 1024)),
    ],
)
@pytest.mark.parametrize('processes', [1, 2])
def test_batch_and_rate_follow_from_the_number_of_images(kind, images, batch, lr, processes):
    cfg = load(kind)
    fit_schedule(cfg, images, processes)
    if batch == 1024:  # the recipe's own: it is scaled as ever
        assert cfg.to_dict() == load(kind).to_dict()
        return
    assert cfg.train_dataloader.batch_size * processes == cfg.auto_scale_lr.base_batch_size == batch
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(lr)
    assert cfg.optim_wrapper.optimizer.type == ('AdamW' if kind == 'finetune' else 'SGD')


def test_a_small_finetuning_averages_over_fewer_steps():
    cfg = load('finetune')
    fit_schedule(cfg, 608, 1)
    assert cfg.default_hooks.ema.momentum == pytest.approx(12.5 / 900)  # 100 epochs of 9 steps
    assert load('finetune').default_hooks.ema.momentum == 1e-4


def test_the_number_of_classes_is_one_knob():
    cfg = load('finetune')
    set_classes(cfg, 4)
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == 4
    assert cfg.val_evaluator.topk == cfg.test_evaluator.topk == (1,)
    set_classes(load('linear'), 1000)
    with pytest.raises(ConfigError, match='1 class'):
        set_classes(cfg, 1)


def test_other_epochs_bring_warm_up_along():
    cfg = load('linear')
    set_epochs(cfg, 9)
    warm_up, cosine = cfg.param_scheduler
    assert (warm_up.end, cosine.begin, cosine.end, cosine.T_max) == (1, 1, 9, 8)
    assert (cfg.train_cfg.max_epochs, cfg.train_cfg.val_interval) == (9, 1)


def write(path: Path, base: str, text: str) -> Path:
    path.write_text(f"_base_ = '{base}'\n{text}\n")
    return path


def sizes(cfg: Config) -> dict[str, list[int]]:
    loaders = {name: cfg[f'{name}_dataloader'] for name in ('train', 'val', 'test') if cfg.get(f'{name}_dataloader')}
    return {
        name: [step[key] for step in loader.dataset.pipeline for key in ('scale', 'crop_size') if key in step]
        for name, loader in loaders.items()
    }


def test_pipelines_follow_the_image_size_where_a_loader_says_nothing_else(tmp_path):
    mine = write(
        tmp_path / 'mine.py', 'ldae::ldae/vit-b_pca.py', 'model = dict(tokenizer=dict(img_size=96, patch_size=12))'
    )
    assert sizes(load_config(mine)) == dict(train=[96, 96], val=[96, 96], test=[96, 96])
    other = write(tmp_path / 'other.py', './mine.py', 'train_cfg = dict(max_epochs=3)')
    assert sizes(load_config(other)) == dict(train=[96, 96], val=[96, 96], test=[96, 96])
    mae = write(tmp_path / 'mae.py', 'ldae::mae/vit-b_400e.py', 'model = dict(backbone=dict(img_size=112))')
    assert sizes(load_config(mae)) == dict(train=[112])


def test_what_a_loader_says_stays(tmp_path):
    text = """
model = dict(tokenizer=dict(img_size=96, patch_size=12))
pipeline = [dict(type='ldae.LoadImage'), dict(type='RandomResizedCrop', scale=80), dict(type='PackInputs')]
train_dataloader = dict(dataset=dict(pipeline=pipeline))
"""
    cfg = load_config(write(tmp_path / 'mine.py', 'ldae::ldae/vit-b_pca.py', text))
    assert sizes(cfg) == dict(train=[80], val=[96, 96], test=[96, 96])
    assert sizes(load_config('ldae::ldae/vit-b_pca.py')) == dict.fromkeys(('train', 'val', 'test'), [256, 256])


MAE = 'ldae::mae/vit-b_256_400e.py'


def test_an_mae_of_the_same_size_is_the_one_that_the_demo_and_the_papers_have():
    demo, other = load_config('ldae::ldae/demo_fashion-mnist.py'), load_config('ldae::mae/demo_fashion-mnist.py')
    found = method_like('mae', demo, load_config(MAE))
    assert found.model.to_dict() == other.model.to_dict()
    assert found.train_dataloader == demo.train_dataloader
    large = method_like('mae', load_config('ldae::ldae/vit-l_pca.py'), load_config(MAE)).model
    wanted = load_config('ldae::mae/vit-l_256_1600e.py').model
    wanted.backbone.update(
        arch=dict(embed_dims=1024, num_layers=24, num_heads=16, feedforward_channels=4096),
        patch_cfg=dict(in_channels=3),
    )
    wanted.head.in_channels = 3
    assert large.to_dict() == wanted.to_dict()


def test_an_mae_of_the_same_size_trains_by_the_same_schedule():
    cfg = load_config('ldae::ldae/vit-b_pca.py')
    found = method_like('mae', cfg, load_config(MAE))
    assert found.optim_wrapper.optimizer.lr == pytest.approx(1.5e-4 * 2048 / 256)  # MAE's rate at this batch
    assert found.optim_wrapper.optimizer.weight_decay == 0.05
    assert (found.train_cfg, found.auto_scale_lr) == (cfg.train_cfg, cfg.auto_scale_lr)
    assert found.val_dataloader is None
    assert found.test_dataloader == cfg.val_dataloader


def test_there_is_no_mae_of_latents():
    cfg = load_config('ldae::ldae/vit-b_pca.py')
    cfg.train_dataloader.dataset = dict(type='ldae.LatentDataset')
    assert method_like('mae', cfg, load_config(MAE)) is None
