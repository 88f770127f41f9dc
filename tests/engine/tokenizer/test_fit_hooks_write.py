# SPDX-License-Identifier: Apache-2.0
import itertools
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from ldae.datasets import IDXDataset
from ldae.models import PatchAETokenizer
from ldae.utils import ConfigError

NUMBER = itertools.count()
GEOMETRY = dict(img_size=28, patch_size=7, in_channels=1, latent_dim=4)
MODEL = dict(
    type='ldae.TokenizerTrainer',
    data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[73.0], std=[90.0]),
    tokenizer=dict(type='ldae.PatchAETokenizer', **GEOMETRY),
)


def loader(split: str, count: int, batch_size: int) -> dict:
    return dict(
        batch_size=batch_size,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=split == 'train'),
        collate_fn=dict(type='ldae.batch_collate'),
        dataset=dict(type='ldae.IDXDataset', split=split, indices=count),
    )


def runner(folder: Path, **options) -> Runner:
    hooks = dict(
        write=dict(type='ldae.WriteTokenizerHook', num_images=None),
        pictures=dict(type='ldae.ReconstructionPicturesHook', interval=100, num_images=3),
        runtime_info=dict(type='ldae.ReducedRuntimeInfoHook'),
        plain=dict(type='ldae.PlainCheckpointHook'),
    )
    cfg = dict(
        model=MODEL,
        work_dir=str(folder),
        train_dataloader=loader('train', 256, 32),
        val_dataloader=loader('test', 64, 32),
        train_cfg=dict(by_epoch=True, max_epochs=15, val_interval=15),
        val_cfg=dict(),
        val_evaluator=dict(type='ldae.ReconstructionMetric'),
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=0.08)),
        default_hooks=hooks,
        default_scope='mmpretrain',
        randomness=dict(seed=0),
        experiment_name=f'{folder.name}_{next(NUMBER)}',
        visualizer=dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')]),
    )
    return Runner.from_cfg(Config(dict(cfg, **options)))


def test_training_ends_in_a_file_of_unit_variance_latents_with_quality_and_pictures_on_the_way(tmp_path):
    run = runner(tmp_path)
    run.train()
    tokenizer = PatchAETokenizer(**GEOMETRY, checkpoint=str(tmp_path / 'tokenizer.pth'))
    images = (IDXDataset(indices=256).images.float() - 73) / 90
    latents = tokenizer.encode(images)
    assert latents.std() == pytest.approx(1, abs=2e-3)
    error = (tokenizer.decode(latents) - images).square().mean()
    assert error < 0.25 * images.var()
    scalars = run.message_hub.log_scalars
    assert scalars['val/reconstruction/psnr'].current() > 14
    assert 0 < scalars['val/reconstruction/ssim'].current() < 1
    assert scalars['train/loss'].current() < scalars['train/loss'].data[0][0]
    assert (tmp_path / 'pictures' / 'epoch_15.png').is_file()


def test_a_model_that_trains_no_tokenizer_is_refused(tmp_path):
    run = runner(tmp_path)
    run.model = torch.nn.Linear(1, 1)
    (hook,) = (hook for hook in run.hooks if type(hook).__name__ == 'WriteTokenizerHook')
    with pytest.raises(ConfigError, match='Linear trains no tokenizer'):
        hook.before_train(run)
