# SPDX-License-Identifier: Apache-2.0
"""Every config of the tree: says what it is and how to run it, builds at full size, and trains two small steps."""

import ast
import math
import re

import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from shrink import needs_extras

from ldae.config import configs_root, load_config

ROOT = configs_root()
# A scale is half a config: it is run with a row (test_deconstruction.py, tests/test_scale.py).
NOT_RUN = {'_base_', 'scales'}
NAMES = sorted(
    path.relative_to(ROOT).as_posix() for path in ROOT.rglob('*.py') if not NOT_RUN & set(path.relative_to(ROOT).parts)
)
BENCHMARKS = [name for name in NAMES if name.startswith('benchmarks/')]
# Rows take their steps at a scale, in test_deconstruction.py.
PRE_TRAINING = [name for name in NAMES if not name.startswith(('benchmarks/', 'deconstruction/', 'after_paper/'))]
RECIPES = [name for name in NAMES if 'demo' not in name]


def docstring(name: str) -> str:
    return ast.get_docstring(ast.parse((ROOT / name).read_text())) or ''


def build_on_meta(name: str) -> torch.nn.Module:
    needs_extras(name)
    cfg = load_config(ROOT / name)
    if cfg.model.get('tokenizer', {}).get('checkpoint'):
        cfg.model.tokenizer.checkpoint = None  # of a tokenizer that is trained first
    init_default_scope('mmpretrain')
    with torch.device('meta'):
        return MODELS.build(dict(data_preprocessor=cfg.data_preprocessor, **cfg.model))


def millions(module: torch.nn.Module) -> int:
    return round(sum(param.numel() for param in module.parameters()) / 1e6)


@pytest.mark.parametrize('name', NAMES)
def test_docstring_says_what_the_config_is_for_and_names_its_command(name):
    text = docstring(name)
    assert text, f'{name} has no docstring'
    assert re.search(rf'tools/\S+ +configs/{re.escape(name)}\b', text) or 'demo' in name


@pytest.mark.parametrize('name', RECIPES)
def test_batch_of_the_docstring_is_the_batch_of_the_config(name):
    stated = re.search(r'(\d+) process\w* x (?:(\d+) x )?(\d+) images = (\d+)', docstring(name))
    assert stated, f'{name}: its docstring needs a line "Batch: N processes x M images = B"'
    processes, accumulated, images, batch = (int(number or 1) for number in stated.groups())
    cfg = load_config(ROOT / name)
    assert images == cfg.train_dataloader.batch_size
    assert accumulated == cfg.optim_wrapper.get('accumulative_counts', 1)
    assert batch == processes * accumulated * images == cfg.auto_scale_lr.base_batch_size


@pytest.mark.parametrize('name', RECIPES)
def test_schedule_covers_every_epoch_once(name):
    cfg = load_config(ROOT / name)
    warm_up, cosine = cfg.param_scheduler
    assert warm_up.begin == 0
    assert warm_up.end == cosine.begin
    assert cosine.end == cfg.train_cfg.max_epochs
    assert cosine.T_max == cosine.end - cosine.begin


@pytest.mark.parametrize('name', NAMES)
def test_model_builds_at_full_size(name):
    model = build_on_meta(name)
    assert any(param.requires_grad for param in model.parameters())


@pytest.mark.parametrize(
    ('name', 'size'),
    [
        ('benchmarks/ldae_vit-b_linear.py', 86),
        ('benchmarks/ldae_vit-l_linear.py', 303),
        ('benchmarks/mae_vit-b_linear.py', 86),
        ('benchmarks/mae_vit-l_linear.py', 303),
    ],
)
def test_transferred_encoder_has_the_size_of_a_plain_vit(name, size):
    assert millions(build_on_meta(name).backbone) == size


@pytest.mark.parametrize('name', PRE_TRAINING)
def test_pre_training_takes_two_steps(name, train):
    check_two_steps(train(name))


@pytest.mark.parametrize('name', BENCHMARKS)
def test_benchmark_takes_two_steps_from_a_pre_trained_checkpoint(name, train, checkpoints):
    method = name.removeprefix('benchmarks/').partition('_')[0]
    runner = train(name, checkpoints.get(method, checkpoints['mocov3']))
    check_two_steps(runner)
    assert 'val/accuracy/top1' in runner.message_hub.log_scalars


def check_two_steps(runner: Runner) -> None:
    assert runner.iter == 2
    losses, _ = runner.message_hub.get_scalar('train/loss').data
    assert len(losses) == 2
    assert all(map(math.isfinite, losses))
    if runner.cfg.get('val_dataloader') is not None:
        assert any(key.startswith('val/') for key in runner.message_hub.log_scalars)
