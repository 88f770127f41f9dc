# SPDX-License-Identifier: Apache-2.0
"""Notes of a stranger's checkpoint are data: nothing of them runs, and none is a path to delete."""

from pathlib import Path

import pytest
import torch

import ldae
from ldae.engine.resume.checkpoint_notes import clean_checkpoint, is_own_file
from ldae.utils import ConfigError

CONFIG = """
_base_ = 'ldae::ldae/vit-b_pca.py'
arch = dict(_delete_=True, embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
model = dict(tokenizer=dict(img_size=24, patch_size=6, latent_dim=4), backbone=dict(arch=arch))
train_dataloader = dict(batch_size=4, num_workers=0)
val_dataloader = val_evaluator = val_cfg = None
train_cfg = dict(max_epochs=1)
auto_scale_lr = dict(base_batch_size=4)
"""

ELSEWHERE = [
    '../victim.pth',
    '/etc/victim.pth',
    'sub/iter_1.pth',
    'iter_1.pth/../../victim',
    'config.py',
    '',
    3,
    None,
    ['x'],
]


@pytest.mark.parametrize('name', ELSEWHERE)
def test_a_note_names_a_file_of_training_or_nothing(name):
    assert not is_own_file(name)
    info = dict(step_checkpoint=name, best_ckpt=name, keep_ckpt_ids=[3, '../../victim', None, 4])
    clean_checkpoint(dict(message_hub=dict(runtime_info=info)), 'x.pth')
    assert info == dict(step_checkpoint=None, best_ckpt=None, keep_ckpt_ids=[3, 4])


def test_notes_of_training_stay():
    info = dict(step_checkpoint='iter_7.pth', best_ckpt='/moved/from/best_psnr_epoch_3.pth', best_score=1.0)
    content = dict(message_hub=dict(runtime_info=dict(info)), meta=dict(epoch=1))
    clean_checkpoint(content, 'x.pth')
    assert content == dict(message_hub=dict(runtime_info=info), meta=dict(epoch=1))


@pytest.fixture
def resume(tmp_path, tiny_image_folder, monkeypatch):
    """Go on in a work dir from its newest checkpoint, after ``change(content)``: the files that are there afterwards."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'mine.py').write_text(CONFIG)
    options = dict(data_root=str(tiny_image_folder), work_dir='work', device='cpu')

    def resume(change, cfg_options):
        run = ldae.train('mine.py', cfg_options, **options)
        content = torch.load(run.checkpoint)
        change(content)
        torch.save(content, run.checkpoint)
        Path('victim.pth').touch()
        Path('work/iter_victim.py').touch()
        return ldae.train('mine.py', cfg_options | {'train_cfg.max_epochs': 2}, resume='auto', **options)

    yield resume
    assert not Path('ran').exists()
    assert Path('work/iter_victim.py').exists()
    assert Path('victim.pth').exists()


def test_nothing_of_a_resumed_checkpoint_runs_or_deletes(resume):
    def change(content):
        content['meta']['config'] = "open('ran', 'w')"
        content['meta']['cfg'] = "open('ran', 'w')"
        info = content['message_hub']['runtime_info']
        info.update(step_checkpoint='../victim.pth', keep_ckpt_ids=['../victim', 1], best_ckpt='../victim.pth')

    run = resume(change, {'default_hooks.checkpoint.max_keep_ckpts': 1, 'default_hooks.checkpoint.save_best': 'loss'})
    assert run.epoch == 2
    assert not Path('work/epoch_1.pth').exists()


@pytest.mark.parametrize(('part', 'value'), [('epoch', 'x'), ('iter', [1]), (None, 'x'), (None, None)])
def test_what_cannot_be_resumed_is_one_line(resume, part, value):
    def change(content):
        if part is None:
            content['meta'] = value
        else:
            content['meta'][part] = value

    with pytest.raises(ConfigError, match='cannot be resumed from'):
        resume(change, {})


@pytest.mark.parametrize(
    ('content', 'place'),
    [
        (dict(optimizer=dict(state={3: []}, param_groups=[])), 'optimizer.state.3'),
        (dict(optimizer=dict(a=dict(state={0: 'x'}))), 'optimizer.state.0'),
        (dict(optimizer=dict(state={}, param_groups=[dict(betas=0.5)])), r'optimizer.param_groups\[0\].betas'),
        (dict(optimizer=dict(state={}, param_groups=[dict(betas=(0.9, 'x'))])), r'optimizer.param_groups\[0\].betas'),
        (
            dict(optimizer=dict(state={}, param_groups=[{}, dict(maximize=[['x']])])),
            r'optimizer.param_groups\[1\].maximize',
        ),
        (dict(optimizer=dict(state={}, param_groups=[dict(eps=None)])), r'optimizer.param_groups\[0\].eps'),
        (dict(param_schedulers=[dict(param_name='lr'), dict(param_name=[])]), r'param_schedulers\[1\].param_name'),
        (dict(param_schedulers=[dict(begin=torch.zeros(2))]), r'param_schedulers\[0\].begin'),
        (dict(param_schedulers=[dict(end_factor=None)]), r'param_schedulers\[0\].end_factor'),
        (dict(meta=dict(epoch='1')), 'meta.epoch'),
        (dict(meta=dict(iter=torch.zeros(2))), 'meta.iter'),
        (dict(progress=dict(data=dict(sampler_seed=1.5))), 'progress.data.sampler_seed'),
        (dict(progress=dict(data=dict(samples='x'))), 'progress.data.samples'),
        (dict(progress=dict(data=dict(epoch=None))), 'progress.data.epoch'),
    ],
)
def test_a_value_that_a_step_would_trip_over_is_one_line(content, place):
    with pytest.raises(ConfigError, match=f'x.pth: {place} is of a wrong type'):
        clean_checkpoint(content, 'x.pth')


def test_what_the_hub_calls_resumed_is_true_or_false():
    content = dict(message_hub=dict(resumed_keys=dict(a=True, b='x', c=None, d=False)))
    clean_checkpoint(content, 'x.pth')
    assert content['message_hub']['resumed_keys'] == dict(a=True, d=False)
