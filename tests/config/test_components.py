# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
from mmengine.config import Config

from ldae.config.components import check_components, check_config, check_data_roots, check_weights, components_of
from ldae.utils import ConfigError


def config(**fields: object) -> Config:
    return Config(dict(default_scope='mmpretrain', **fields))


@pytest.mark.parametrize(
    ('fields', 'where', 'known'),
    [
        (dict(model=dict(type='LDAE')), 'model', 'ldae.LDAE'),
        (dict(model=dict(type='ldea.LDAE')), 'model', 'ldae.LDAE'),
        (dict(model=dict(type='ldae.LDAE', backbone=dict(type='ldae.LDAEVit'))), 'model.backbone', 'ldae.LDAEViT'),
        (dict(model=dict(type='ImageClassifer')), 'model', 'ImageClassifier'),
        (dict(train_dataloader=dict(dataset=dict(type='ImageNett'))), 'train_dataloader.dataset', 'ImageNet'),
        (
            dict(val_dataloader=dict(dataset=dict(type='ImageNet', pipeline=[dict(type='CentreCrop')]))),
            'val_dataloader.dataset.pipeline[0]',
            'CenterCrop',
        ),
        (
            dict(train_dataloader=dict(collate_fn=dict(type='batch_collate'))),
            'train_dataloader.collate_fn',
            'ldae.batch_collate',
        ),
        (
            dict(optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamWW'))),
            'optim_wrapper.optimizer',
            'AdamW',
        ),
        (dict(optim_wrapper=dict(type='AutocastOptimWrapper')), 'optim_wrapper', 'ldae.AutocastOptimWrapper'),
        (dict(model_wrapper_cfg=dict(type='FullyShardedModel')), 'model_wrapper_cfg', 'ldae.FullyShardedModel'),
        (dict(default_hooks=dict(x=dict(type='CheckpointHok'))), 'default_hooks.x', 'CheckpointHook'),
        (dict(custom_hooks=[dict(type='EMAHok')]), 'custom_hooks[0]', 'EMAHook'),
        (dict(val_evaluator=[dict(type='Acuracy')]), 'val_evaluator[0]', 'Accuracy'),
        (dict(param_scheduler=[dict(type='CosineAnealingLR')]), 'param_scheduler[0]', 'CosineAnnealingLR'),
    ],
)
def test_an_unknown_component_is_named_with_its_nearest(fields: dict, where: str, known: str):
    with pytest.raises(ConfigError) as caught:
        list(components_of(config(**fields)))
    assert str(caught.value).startswith(f'{where}.type=')
    assert str(caught.value).endswith(f"did you mean '{known}'?")


def test_components_of_other_kinds_inside_a_model_are_known():
    backbone = dict(type='VisionTransformer', init_cfg=[dict(type='Xavier', layer='Linear')])
    augments = [dict(type='Mixup', alpha=0.8)]
    list(
        components_of(config(model=dict(type='ImageClassifier', backbone=backbone, train_cfg=dict(augments=augments))))
    )


def test_options_of_hooks_that_are_called_type_are_left_alone():
    list(components_of(config(custom_hooks=[dict(type='EMAHook', other=dict(type='whatever'))])))


def test_a_missing_default_scope_is_said():
    with pytest.raises(ConfigError, match='default_scope'):
        list(components_of(Config(dict(model=dict(type='ImageClassifier')))))


def test_data_folders_must_exist(tmp_path: Path):
    def loader(**dataset: object) -> Config:
        return config(val_dataloader=dict(dataset=dict(type='Any', dataset=dataset)))

    with pytest.raises(ConfigError, match=r'nowhere.*val_dataloader.*--data-root'):
        check_data_roots(loader(data_root=str(tmp_path / 'nowhere')))
    for root in (str(tmp_path), '', None, 's3://bucket'):
        check_data_roots(loader(data_root=root))
    check_data_roots(loader(data_root=str(tmp_path / 'nowhere'), download=True))


def test_checkpoints_must_exist(tmp_path: Path):
    pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'none.pth'), prefix='backbone.')
    with pytest.raises(ConfigError, match=r'none\.pth.*Pretrained'):
        check_weights(config(model=dict(type='X', backbone=dict(type='Y', init_cfg=pretrained))))
    with pytest.raises(ConfigError, match='load_from'):
        check_weights(config(load_from=str(tmp_path / 'none.pth')))
    check_weights(config(load_from='https://example.org/a.pth', model=dict(tokenizer=dict(checkpoint=None))))


def test_an_empty_config_passes():
    check_config(config())


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(type='MAEViT', mask_ratio=2), 'mask_ratio=2 is out of range'),
        (dict(type='MAEViT', mask_ratoi=0.5), "did you mean 'mask_ratio'"),
        (dict(type='ldae.LDAEViT', timestep='ten'), "timestep must be an integer, got 'ten'"),
    ],
)
def test_options_of_components_are_checked(options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        check_components(config(model=dict(type='MAE', backbone=options)))


def test_mean_and_std_go_together():
    with pytest.raises(ConfigError, match='one value a channel'):
        check_components(config(data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[1, 2], std=[1])))


@pytest.mark.parametrize('options', [dict(pad=-1), dict(crop_scale=(0.5, 2)), dict(split='trian'), dict(indices=0)])
def test_options_of_data_sets_are_checked_before_they_read(options: dict):
    with pytest.raises(ConfigError, match=next(iter(options))):
        check_components(config(train_dataloader=dict(dataset=dict(type='ldae.IDXDataset', **options))))


def test_whole_batches_are_not_collated_again():
    dataset = dict(type='ldae.PackedImages', data_root='packed')
    options = dict(batch_size=2, dataset=dataset)
    for collate in ({}, dict(collate_fn=dict(type='default_collate'))):
        with pytest.raises(ConfigError, match=r"train_dataloader\.collate_fn\.type='ldae\.batch_collate'"):
            check_components(config(train_dataloader=options | collate))
    check_components(config(train_dataloader=options | dict(collate_fn=dict(type='ldae.batch_collate'))))
