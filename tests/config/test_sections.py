# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import mmpretrain
import pytest
from mmengine.config import Config

from ldae.config import configs_root, load_config
from ldae.config.sections import check_complete, check_sections
from ldae.utils import ConfigError

ITERS = dict(by_epoch=False, max_iters=9)
MODEL = dict(model=dict(type='X'))


def line(**fields: object) -> str:
    def check(cfg: Config) -> None:
        check_sections(cfg)
        check_complete(cfg)

    with pytest.raises(ConfigError) as caught:
        check(Config(fields))
    return str(caught.value)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (dict(tran_dataloader=dict(batch_size=1)), "did you mean 'train_dataloader'?"),
        (dict(optim_wraper=dict(type='X')), "did you mean 'optim_wrapper'?"),
        (dict(train_dataloader=dict(batch_sise=1)), "train_dataloader has no option 'batch_sise'; did you mean 'batch_size'?"),
        (dict(train_dataloader=dict(batch_size=0)), 'train_dataloader.batch_size=0 is out of range'),
        (dict(train_dataloader=dict(num_workers='two')), "num_workers must be an integer, got 'two'"),
        (dict(train_dataloader=[1]), 'train_dataloader must be a DataLoader or a dict or None, got [1]'),
        (dict(train_cfg=dict(by_epoch=True, max_epoch=3)), "did you mean 'max_epochs'?"),
        (dict(train_cfg=dict(by_epoch=True, max_epochs=0)), 'train_cfg.max_epochs=0 is out of range'),
        (dict(train_cfg=dict(max_epochs=1)), 'train_cfg has no by_epoch'),
        (dict(train_cfg=dict(by_epoch=False, max_epochs=1)), 'needs max_iters'),
        (dict(optim_wrapper=dict(type='OptimWrapper')), 'optim_wrapper.optimizer must be a dict with a type'),
        (dict(optim_wrapper=dict(optimiser=dict(type='SGD'))), "did you mean 'optimizer'?"),
        (dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=-1))), 'optimizer.lr=-1 is out of range'),
        (dict(optim_wrapper=dict(optimizer=dict(type='SGD'), clip_grad=dict(max_nrm=1))), "did you mean 'max_norm'?"),
        (dict(randomness=dict(sed=1)), "did you mean 'seed'?"),
        (dict(env_cfg=dict(mp_cfg=dict(mp_start=1))), "did you mean 'mp_start_method'?"),
        (dict(auto_scale_lr=dict(base_batch_size=-2)), 'base_batch_size=-2 is out of range'),
        (dict(optimizer=dict(type='SGD', lr=1)), 'optimizer is a setting of old versions, which nothing reads: today it is optim_wrapper'),
        (dict(runner=dict(type='EpochBasedRunner', max_epochs=3)), 'today it is train_cfg'),
        (dict(data=dict(samples_per_gpu=3)), 'today it is train_dataloader, val_dataloader and test_dataloader'),
        (dict(lr_config=dict(policy='step')), 'today it is param_scheduler'),
        (dict(evaluation=dict(interval=1)), 'today it is val_evaluator'),
        (dict(total_epochs=100), 'today it is train_cfg.max_epochs'),
        (dict(checkpoint_config=dict(interval=1)), 'today it is default_hooks.checkpoint'),
        (dict(log_config=dict(interval=1)), 'today it is default_hooks.logger'),
        (dict(workflow=[('train', 1)]), 'today it is train_cfg.val_interval'),
        (dict(train_cfg=ITERS, default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1))),
         'default_hooks.checkpoint counts epochs, and train_cfg steps: set by_epoch=False there'),
        (dict(train_cfg=ITERS, param_scheduler=[dict(type='LinearLR', end=3)]), 'param_scheduler[0] counts epochs'),
        (dict(log_level='LOUD'), "log_level='LOUD' is unknown"),
        (dict(resume='yes'), "resume must be True or False, got 'yes'"),
        (dict(default_hooks=dict(checkpoint=dict(type='X'), chekpoint=dict(interval=2))), "did you mean 'checkpoint'?"),
        (dict(custom_hooks=['EMAHook']), "custom_hooks[0] must be a dict with a type, got 'EMAHook'"),
        (
            dict(train_dataloader=dict(dataset=dict(type='X', pipeline=['{type:Y}']))),
            "train_dataloader.dataset.pipeline[0] must be a dict with a type, got '{type:Y}'",
        ),
        (
            dict(val_dataloader=dict(dataset=dict(type='X', pipeline='Y'))),
            "val_dataloader.dataset.pipeline must be a list of steps, got 'Y'",
        ),
        (dict(val_cfg=dict(tpye='ValLoop')), "did you mean 'type'?"),
        (dict(**MODEL, train_dataloader=dict(batch_size=1)), 'train_dataloader has no dataset'),
        (dict(**MODEL, train_dataloader=dict(dataset=dict(data_root='x'))), 'train_dataloader.dataset must be a dict with a type'),
        (dict(train_dataloader=dict(dataset=dict(type='X'))), 'model must be a dict with a type, got None'),
    ],
)  # fmt: skip
def test_each_mistake_is_one_line(fields: dict, message: str):
    text = line(**fields)
    assert message in text
    assert '\n' not in text


def test_variables_of_a_config_may_have_any_name():
    check_sections(Config(dict(data_root='x', test_pipeline=[], loader=dict(a=1), size=3, ldae=1)))


def test_an_old_name_may_be_that_of_a_variable():
    optimizer = dict(type='SGD', lr=1)
    check_sections(Config(dict(optimizer=optimizer, total_epochs=3, optim_wrapper=dict(optimizer=optimizer),
                               train_cfg=dict(by_epoch=True, max_epochs=3))))  # fmt: skip


def test_what_counts_steps_goes_with_a_loop_of_steps():
    hook = dict(type='CheckpointHook', interval=2, by_epoch=False)
    by_step = [dict(type='LinearLR', end=3, by_epoch=False), dict(type='CosineAnnealingLR', convert_to_iter_based=True)]
    check_sections(Config(dict(train_cfg=ITERS, param_scheduler=by_step, default_hooks=dict(checkpoint=hook))))
    check_sections(Config(dict(train_cfg=dict(by_epoch=True, max_epochs=2), default_hooks=dict(checkpoint=hook))))


def test_shipped_configs_of_both_packages_pass():
    theirs = Path(mmpretrain.__file__).parent / '.mim' / 'configs' / 'mae'
    for path in sorted(theirs.rglob('*.py'))[::3]:
        check_sections(Config.fromfile(path))
    for name in ('ldae/vit-b_pca.py', 'mae/vit-b_400e.py', 'benchmarks/ldae_vit-b_finetune.py'):
        check_sections(load_config(configs_root() / name))
