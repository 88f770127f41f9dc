# SPDX-License-Identifier: Apache-2.0
"""Pre-trained checkpoint to score by the launcher's script; and that score beside the fast probe's."""

import json

import pytest
import torch
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader

from ldae.apis import get_model
from ldae.config import load_config
from ldae.datasets import IDXDataset, batch_collate
from ldae.evaluation import extract_features, linear_probe, pooled_features
from ldae.registry import MODELS

IMAGES, EPOCHS, BATCH, LR = 5000, 12, 500, 0.2
# What the fast probe does: no augmentation, no warm-up.
SETTING = [
    'train_dataloader.dataset.crop_scale=None',
    *(f'train_dataloader.dataset.indices={IMAGES}', f'train_dataloader.batch_size={BATCH}'),
    *(f'optim_wrapper.optimizer.lr={LR}', f'auto_scale_lr.base_batch_size={BATCH}'),
    *('param_scheduler.0.start_factor=1.0', 'param_scheduler.0.end=1', 'param_scheduler.1.begin=0'),
    *(f'param_scheduler.1.end={EPOCHS}', f'param_scheduler.1.T_max={EPOCHS}'),
    *(f'train_cfg.max_epochs={EPOCHS}', f'train_cfg.val_interval={EPOCHS}'),
    'default_hooks.checkpoint.interval=-1',
]


@pytest.fixture
def checkpoint(workspace):
    """An l-DAE of a small scale with random weights, as a Runner writes it."""
    cfg = load_config('ldae::ldae/vit-b_pca.py', scale='fashion-mnist_subset')
    torch.manual_seed(0)
    init_default_scope('mmpretrain')
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    for param in model.backbone.parameters():
        if param.requires_grad:
            torch.nn.init.normal_(param, std=0.1)
    images = IDXDataset(split='train', indices=500, pad=2).images
    batch = model.data_preprocessor(dict(inputs=images, data_samples=None))
    model.tokenizer.fit([batch['inputs']])
    path = workspace / 'epoch_4.pth'
    torch.save(dict(meta=dict(cfg=cfg.pretty_text), state_dict=model.state_dict()), path)
    return path


def fast_probe(checkpoint) -> float:
    model = get_model(checkpoint=checkpoint, device='cpu')
    sets = []
    for split, images in (('train', IMAGES), ('test', None)):
        data = IDXDataset(split=split, indices=images, pad=2)
        loader = DataLoader(data, 500, collate_fn=batch_collate)
        sets += extract_features(lambda x: pooled_features(model, x), loader, model.data_preprocessor)
    options = dict(lrs=[LR], weight_decays=[0.0], batch_size=BATCH, epochs=EPOCHS)
    return linear_probe(*sets, **options).accuracy


def test_the_config_and_the_fast_probe_agree_within_half_a_point(run, workspace, checkpoint):
    run('benchmark.sh', 'linear', checkpoint, 1, '--work-dir', 'one', '--cfg-options', *SETTING)
    slow = json.loads((workspace / 'one' / 'benchmark.json').read_text())['top1']
    assert slow > 50
    assert fast_probe(checkpoint) == pytest.approx(slow, abs=0.5)


def test_two_processes_score_a_checkpoint_once(run, workspace, checkpoint):
    few = ['train_dataloader.dataset.indices=256', 'train_cfg.max_epochs=2', 'train_cfg.val_interval=2']
    first = run('benchmark.sh', 'linear', checkpoint, 2, '--work-dir', 'two', '--cfg-options', *few)
    assert first.stdout.count('top-1 ') == 1
    found = json.loads((workspace / 'two' / 'benchmark.json').read_text())
    assert (found['epochs'], found['scale']) == (2, 'fashion-mnist_subset')
    assert found['batch'].startswith('batch 2 x 1024')
    again = run('benchmark.sh', 'linear', checkpoint, 2, '--work-dir', 'two', status=2)
    assert 'benchmark.json exists: pass --force' in again.stderr


def test_the_script_without_arguments_shows_how_it_is_used(run):
    assert 'usage: tools/benchmark.sh' in run('benchmark.sh', status=2).stderr
    assert 'usage: tools/benchmark.sh' in run('benchmark.sh', '--help').stdout
    assert 'usage: tools/benchmark.sh' in run('benchmark.sh', 'linear', 'a.pth', 'two', status=2).stderr
