# SPDX-License-Identifier: Apache-2.0
"""Methods of pre-training from start to end: trained on data in memory and on folders, resumed, timed."""

import copy
import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmpretrain.models.utils import CosineEMA
from PIL import Image
from torch import nn

from ldae.config import load_config
from ldae.config.methods import FACTS, METHODS, method_like
from ldae.launch import LaunchOptions, build_runner, prepare, train
from ldae.launch.auto import LADDER, Choice, look_at, seconds_per_image
from ldae.launch.batch import needed
from ldae.utils import ConfigError

DEMO = 'ldae::ldae/demo_fashion-mnist.py'
NAMES = [name for name in METHODS if name not in ('ldae', 'mae') and (name != 'dino' or find_spec('lightly'))]


def tiny(name: str, images: int = 64, **options):
    """The method on the first images of the demo, 16 a step, two blocks of width 24."""
    demo = load_config(DEMO)
    demo.model.backbone.arch.update(embed_dims=24, num_layers=2, num_heads=2, feedforward_channels=48)
    demo.train_dataloader.dataset.indices = images
    demo.train_dataloader.batch_size = demo.auto_scale_lr.base_batch_size = 16
    demo.train_cfg.max_epochs = 2
    cfg = method_like(name, demo, load_config(METHODS[name]))
    cfg.default_hooks.health = dict(type='ldae.HealthHook', interval=3, num_images=20)
    cfg.merge_from_dict(options)
    return cfg


@pytest.mark.parametrize('name', NAMES)
def test_a_resumed_run_ends_with_the_same_bits(name, tmp_path):
    checkpoints = dict(type='ldae.SafeCheckpointHook', interval=3, by_epoch=False, max_keep_ckpts=-1)
    cfg = tiny(name, **{'default_hooks.checkpoint': checkpoints})
    whole = train(cfg, work_dir=tmp_path / 'whole')
    assert all(map(math.isfinite, whole.curves['loss'].values))
    stopped = tmp_path / 'whole' / 'iter_3.pth'
    again = train(cfg, work_dir=tmp_path / 'again', resume=str(stopped))
    states = [run.runner.model.state_dict() for run in (whole, again)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert any(key.startswith('health/') for key in again.message_hub.log_scalars)


@pytest.mark.parametrize('name', [name for name in NAMES if name in ('mocov3', 'byol', 'dino')])
def test_the_teacher_follows_each_update_once(name, tmp_path):
    """Of two accumulated batches each; the weights are moved by hand."""
    cfg = tiny(name, **{'optim_wrapper.accumulative_counts': 2})
    runner = build_runner(prepare(cfg, LaunchOptions(work_dir=tmp_path)))
    (average,) = (part for part in runner.model.modules() if isinstance(part, CosineEMA))
    MessageHub.get_current_instance().update_info('max_iters', 10**9)  # momentum as at the start
    student = nn.Linear(2, 2)
    average.avg_parameters = dict(student.named_parameters())
    average.module = copy.deepcopy(student)
    average.avg_parameters = dict(average.module.named_parameters())
    before, moved = student.weight.detach().clone(), []
    for step in range(5):
        if step in (2, 4):
            with torch.no_grad():
                student.weight += 1
        average.update_parameters(student)
        moved.append((average.module.weight - before).mean().item())
    m = average.momentum
    assert moved == pytest.approx([0, 0, m, m, m + m * (2 - m)], rel=1e-4)


@pytest.fixture(scope='module')
def images(tmp_path_factory) -> Path:
    root, rng = tmp_path_factory.mktemp('images'), np.random.default_rng(0)
    for number in range(32):
        path = root / 'train' / 'ab'[number % 2] / f'{number}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (36, 40, 3), dtype=np.uint8)).save(path)
    return root


@pytest.mark.parametrize('name', NAMES)
def test_a_scale_of_ones_own_times_steps_of_any_method(name, images):
    choice = Choice(LADDER[0], 32, 8)
    assert seconds_per_image(METHODS[name], look_at(str(images)), choice, data_root=str(images)) > 0


def test_a_small_batch_of_a_contrastive_method_is_said(tmp_path):
    lines = {name: prepare(tiny(name), LaunchOptions(work_dir=tmp_path)).get('small_batch') for name in NAMES}
    said = {name for name, line in lines.items() if line}
    assert said == {name for name in NAMES if FACTS[name].batch}
    assert '16 here, 4096 in its recipe' in lines['mocov3']
    full = load_config(METHODS['mocov3'])
    full.train_dataloader.batch_size = 4096
    assert 'small_batch' not in prepare(full, LaunchOptions(work_dir=tmp_path))


@pytest.mark.parametrize(('name', 'views'), [('mocov3', []), ('simclr', [{}] * 3), ('simmim', [{}] * 2)])
def test_other_numbers_of_views_are_one_line(name, views, tmp_path):
    cfg = tiny(name)
    cfg.train_dataloader.dataset.update(views=views, crop_scale=None)
    with pytest.raises(ConfigError, match=f'must be [12] for {FACTS[name].title}, not {len(views) or 1}'):
        build_runner(prepare(cfg, LaunchOptions(work_dir=tmp_path)))


def test_a_pipeline_without_views_is_one_line(images, tmp_path):
    cfg = load_config(METHODS['byol'], data_root=str(images))
    cfg.train_dataloader.dataset.pipeline.pop(1)
    with pytest.raises(ConfigError, match='must be 2 for BYOL, not 1'):
        build_runner(prepare(cfg, LaunchOptions(work_dir=tmp_path)))


@pytest.mark.parametrize('name', [name for name in NAMES if FACTS[name].views == 2])
def test_two_views_need_twice_the_memory_of_one(name, tmp_path):
    model = build_runner(prepare(tiny(name), LaunchOptions(work_dir=tmp_path))).model
    _, image = needed(model)
    (depth, width, tokens) = (2, 24, 16)
    assert image == 2 * depth * width * tokens * 16 * 4
