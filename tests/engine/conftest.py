# SPDX-License-Identifier: Apache-2.0
import itertools

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

ARCH = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
MODEL = dict(
    type='ldae.LDAE',
    data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[73.0], std=[90.0]),
    tokenizer=dict(type='ldae.PatchPCATokenizer', img_size=28, patch_size=7, in_channels=1, latent_dim=4),
    noiser=dict(type='ldae.GaussianNoiser'),
    backbone=dict(type='ldae.LDAEViT', arch=ARCH),
)
NUMBER = itertools.count()


def dataloader(count, split='train', **dataset):
    return dict(
        batch_size=16,
        num_workers=0,
        collate_fn=dict(type='ldae.batch_collate'),
        dataset=dict(type='ldae.IDXDataset', split=split, indices=count, **dataset),
    )


@pytest.fixture
def make_dataloader():
    """Config of a data loader of the first ``count`` images of a split."""
    return dataloader


@pytest.fixture
def make_runner(tmp_path):
    """A runner of a tiny l-DAE on 32 images, two steps an epoch, with the given hooks."""

    def make(hooks, epochs=2, **kwargs):
        init_default_scope('mmpretrain')
        torch.set_num_threads(1)
        cfg = dict(
            model=MODEL,
            work_dir=str(tmp_path),
            train_dataloader=dict(dataloader(32), sampler=dict(type='DefaultSampler', shuffle=True)),
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=1),
                checkpoint=dict(type='CheckpointHook', interval=-1, save_last=False),
                fit_tokenizer=dict(type='ldae.FitTokenizerHook'),
            ),
            default_scope='mmpretrain',
            randomness=dict(seed=0),
            experiment_name=f'{tmp_path.name}_{next(NUMBER)}',
            visualizer=dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')]),
        )
        runner = Runner.from_cfg(Config(cfg | kwargs))
        runner.register_custom_hooks(hooks)
        return runner

    return make
