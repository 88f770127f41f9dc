# SPDX-License-Identifier: Apache-2.0
"""Shards, tables and lists of the same images in the same order: the same PCA, and the same training, also across a kill in the
middle of an epoch."""

import json
import signal

import pytest
import torch
from data_roots import WRITERS

# What a pack has done of a pipeline, and something random after it.
CONFIG = """
_base_ = './base.py'
data_root = 'images'
pipeline = [
    dict(type='ldae.LoadImage'),
    dict(type='ResizeEdge', scale=16, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=16),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
train_dataloader = dict(num_workers=2, dataset=dict(data_root='images', pipeline=pipeline))
val_dataloader = dict(dataset=dict(data_root='images', pipeline=pipeline))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=2)
"""


@pytest.fixture
def env(workspace, monkeypatch) -> dict:
    (workspace / 'tiny.py').rename(workspace / 'base.py')
    (workspace / 'tiny.py').write_text(CONFIG)
    env = dict(HF_HOME=str(workspace / 'hf'), HF_HUB_OFFLINE='1')
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    return env


@pytest.mark.parametrize('kind', [*WRITERS, 'pack'])
def test_a_run_killed_in_an_epoch_ends_with_the_bits_of_one_on_the_folder(
    runs, workspace, outcome, assert_same, tiny_image_folder, env, kind
):
    def run(name: str, root: object, *more: str, **faults: str) -> int:
        return runs.run('--data-root', root, '--work-dir', name, *more, env=env | faults)

    assert run('whole', 'images') == 0, runs.printed()[-4000:]
    if kind == 'pack':
        root = workspace / 'pack'
        for split in ('train', 'val'):
            options = ('--out', root, '--edge', 16, '--split', split)
            assert runs.run('images', *options, tool='pack-dataset', env=env) == 0, runs.printed()[-4000:]
    else:
        root = WRITERS[kind](tiny_image_folder, workspace / kind)
    assert run('killed', root, FAULT='SIGKILL 0 5') == -signal.SIGKILL, runs.printed()[-4000:]
    assert run('killed', root, '--resume') == 0, runs.printed()[-4000:]
    assert 'resumed epoch: 0, iter: 3' in runs.printed()
    assert_same(outcome('killed'), outcome('whole'))
    saved = torch.load(workspace / 'whole' / 'epoch_2.pth', weights_only=True)['state_dict']
    assert saved['tokenizer.fitted'] == 1
    if kind == 'pack':
        return
    of_run = 'killed/epoch_2.pth', '--import', 'faults'
    status = runs.run(*of_run, '--data-root', root, '--work-dir', 'probe', tool='probe', env=env)
    assert status == 0, runs.printed()[-4000:]
    assert json.loads((workspace / 'probe' / 'probe.json').read_text())['data']['root'] == root
    assert runs.run(*of_run, '--out', 'timm', '--to', 'timm', tool='export', env=env) == 0, runs.printed()[-4000:]


def test_two_processes_share_the_images_of_fewer_shards(runs, workspace, tiny_image_folder, env):
    WRITERS['shards'](tiny_image_folder, workspace / 'shards')
    options = ['--data-root', 'wds::shards/train-0000.tar', '--cfg-options', 'train_cfg.max_epochs=1']
    assert runs.run_two(*options, env=env) == [0, 0], runs.printed('log0')[-4000:]
    assert '6 images; 1 steps; 2 x cpu' in runs.printed('log0')
