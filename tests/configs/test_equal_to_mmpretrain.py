# SPDX-License-Identifier: Apache-2.0
"""Configs that say they are mmpretrain's equal the installed mmpretrain's, apart from what is listed here."""

import copy
from pathlib import Path

import mmpretrain
import pytest
from mmengine.config import Config

from ldae.config import configs_root, load_config

THEIRS = Path(mmpretrain.__file__).parent / '.mim' / 'configs'
LINEAR = 'mae/benchmarks/vit-{}-p16_8xb2048-linear-coslr-90e_in1k.py'
FINETUNE = 'mae/benchmarks/vit-{}-p16_8xb128-coslr-{}e_in1k.py'
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
IN_PLACE_OF = {'ldae.SafeCheckpointHook': 'CheckpointHook', 'ldae.DeferredIterTimerHook': 'IterTimerHook'}
# Names that a config gives to parts of itself.
VARIABLES = (
    *('dataset_type', 'data_root', 'train_pipeline', 'test_pipeline', 'rand_augment', 'random_erasing'),
    *('bgr_mean', 'bgr_std', 'vis_backends', 'temperature', 'crop_and_colours'),
    *('view_1', 'view_2', 'view_pipeline1', 'view_pipeline2'),
)


def resolved(cfg: Config) -> dict:
    """The parts of a config that decide what is learned, in one form."""
    cfg = copy.deepcopy(cfg.to_dict())
    for key in VARIABLES:
        cfg.pop(key, None)
    for name in LOADERS:
        if name in cfg:
            _normalise_loader(cfg[name], name)
    # Our own hooks make checkpoints and logs safer; they change nothing that is learned. Two take the place of others.
    for hook in cfg['default_hooks'].values():
        hook['type'] = IN_PLACE_OF.get(hook['type'], hook['type'])
    cfg['default_hooks'] = {k: v for k, v in cfg['default_hooks'].items() if not v['type'].startswith('ldae.')}
    cfg['train_cfg'].setdefault('val_interval', 1)
    if cfg['optim_wrapper']['optimizer']['type'] == 'LARS':
        # mmpretrain's probe keeps a base batch of 1024 from another schedule; its lr is that of 8 x 2048 images.
        cfg.pop('auto_scale_lr', None)
    cfg['randomness'].setdefault('deterministic', False)
    return cfg


def _normalise_loader(loader: dict, name: str) -> None:
    # Our dataset class reads any folder as mmpretrain's reads ImageNet's, and our reader whole images as mmcv's does.
    dataset = loader['dataset']
    for step in dataset['pipeline']:
        if step['type'] == 'ldae.LoadImage':
            step['type'] = 'LoadImageFromFile'
    assert dataset['type'] in ('ImageNet', 'ldae.ImageFolder')
    dataset.update(type='ImageNet', data_root='data/imagenet')
    dataset.pop('with_label', None)
    for speed in ('num_workers', 'persistent_workers', *(() if name.startswith('train') else ('batch_size',))):
        loader.pop(speed, None)
    loader.setdefault('drop_last', False)


def ours(name: str) -> dict:
    return resolved(load_config(configs_root() / name))


def theirs(name: str) -> dict:
    return resolved(Config.fromfile(THEIRS / name))


@pytest.mark.parametrize('epochs', [300, 400, 800, 1600])
@pytest.mark.parametrize(('size', 'full'), [('b', 'base'), ('l', 'large')])
def test_mae_pre_training_is_mmpretrains(size, full, epochs):
    name = f'mae/mae_vit-{full}-p16_8xb512-amp-coslr-{epochs}e_in1k.py'
    assert ours(f'mae/vit-{size}_{epochs}e.py') == theirs(name)


@pytest.mark.parametrize(('size', 'full'), [('b', 'base-p16_16xb256'), ('l', 'large-p16_64xb64')])
def test_mocov3_pre_training_is_mmpretrains(size, full):
    found, original = ours(f'mocov3/vit-{size}_300e.py'), theirs(f'mocov3/mocov3_vit-{full}-amp-coslr-300e_in1k.py')
    original['randomness']['seed'] = 0  # theirs of ViT-B has none
    assert found == original


@pytest.mark.parametrize('name', ['simclr', 'byol'])
def test_views_are_mmpretrains(name):
    found, original = (
        cfg['train_dataloader']['dataset']['pipeline'][1]
        for cfg in (ours(f'{name}/vit-b_300e.py'), theirs(f'{name}/{name}_resnet50_16xb256-coslr-200e_in1k.py'))
    )
    assert found == original


@pytest.mark.parametrize(
    ('name', 'original'),
    [
        ('vit-b_linear_mmpretrain.py', LINEAR.format('base')),
        ('vit-l_linear_mmpretrain.py', LINEAR.format('large')),
        ('vit-b_finetune_mmpretrain.py', FINETUNE.format('base', 100)),
        ('vit-l_finetune_mmpretrain.py', FINETUNE.format('large', 50)),
    ],
)
def test_mmpretrains_protocol_is_mmpretrains(name, original):
    expected = theirs(original)
    assert ours(f'benchmarks/mae_{name}') == expected
    ldae = ours(f'benchmarks/ldae_{name}')
    for cfg in (ldae, expected):
        cfg['model'].pop('backbone')
    assert ldae == expected


@pytest.mark.parametrize('name', ['linear', 'finetune'])
def test_mmpretrains_protocol_for_half_large_is_that_of_large(name):
    half, large = (ours(f'benchmarks/ldae_vit-{size}_{name}_mmpretrain.py') for size in ('half-l', 'l'))
    half['model'].pop('backbone'), large['model'].pop('backbone')
    assert half == large
