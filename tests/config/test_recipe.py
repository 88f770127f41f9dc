# SPDX-License-Identifier: Apache-2.0
import math

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope

from ldae.config import load_config
from ldae.config.methods import FACTS, METHODS
from ldae.config.reading import output_size
from ldae.config.recipe import fit_recipe
from ldae.launch import LaunchOptions, prepare
from ldae.registry import MODELS
from ldae.utils import ConfigError

PRETRAINING = ['ldae::ldae/vit-b_pca.py', 'ldae::mae/vit-b_400e.py']


@pytest.mark.parametrize('name', PRETRAINING)
def test_a_length_takes_warm_up_decay_and_checkpoints_along(name):
    cfg, before = load_config(name), load_config(name)
    fit_recipe(cfg, epochs=40)
    share = 40 / before.train_cfg.max_epochs
    for new, old in zip(cfg.param_scheduler, before.param_scheduler, strict=True):
        assert new.end == round(old.end * share)
    assert cfg.param_scheduler[1].T_max == cfg.param_scheduler[1].end - cfg.param_scheduler[1].begin
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[-1].end == 40
    assert cfg.default_hooks.checkpoint.interval <= 4


@pytest.mark.parametrize('epochs', [1, 2, 3])
def test_the_shortest_runs_have_a_schedule_too(epochs):
    cfg = load_config(PRETRAINING[0])
    fit_recipe(cfg, epochs=epochs)
    ends = [(scheduler.get('begin', 0), scheduler.end) for scheduler in cfg.param_scheduler]
    assert ends == ([(0, 1)] if epochs == 1 else [(0, 1), (1, epochs)])


WARM_UP = dict(type='LinearLR', start_factor=1e-3)
COSINE = dict(type='CosineAnnealingLR', eta_min=0.1)


@pytest.mark.parametrize(
    ('schedule', 'settled'),
    [
        (
            [dict(WARM_UP, end=20, by_epoch=True), dict(COSINE, begin=20, by_epoch=True)],
            2,
        ),  # mmpretrain's Swin: without an end
        ([dict(WARM_UP, end=500, by_epoch=False), dict(COSINE, T_max=100, end=100)], 1),
        ([dict(type='MultiStepLR', milestones=[30, 60, 90])], 0),  # mmpretrain's ResNet
        (dict(type='StepLR', step_size=20), 0),
        ([dict(COSINE, T_max=100)], 0),
        ([dict(COSINE, T_max=200, end=100)], 0),  # half a period
        (dict(type='CosineRestartLR', periods=[40, 60], restart_weights=[1, 0.5], eta_min=0.1), 0),
    ],
    ids=['without an end', 'warm-up by steps', 'milestones', 'steps', 'cosine alone', 'half a period', 'restarts'],
)
def test_a_foreign_schedule_keeps_its_curve(schedule, settled):
    cfg = Config(dict(param_scheduler=schedule, train_cfg=dict(max_epochs=100), default_hooks={}))
    before = learning_rates(cfg.param_scheduler, 100)
    fit_recipe(cfg, epochs=10)
    # A warm-up by steps ends a step before its end, of 50 here and of 500 before.
    assert learning_rates(cfg.param_scheduler, 10)[settled:] == pytest.approx(before[::10][settled:], abs=0.02)


def test_schedules_of_several_optimizers_and_none_are_taken_too():
    cfg = Config(
        dict(param_scheduler=dict(a=[dict(COSINE, T_max=100)]), train_cfg=dict(max_epochs=100), default_hooks={})
    )
    fit_recipe(cfg, epochs=10)
    assert cfg.param_scheduler.a[0].T_max == 10
    cfg = Config(dict(train_cfg=dict(max_epochs=100), default_hooks={}))
    fit_recipe(cfg, epochs=10)
    assert cfg.train_cfg.max_epochs == 10


def learning_rates(schedule: list[dict] | dict, epochs: int, steps: int = 10) -> list[float]:
    """At the start of each epoch of so many steps, by mmengine's schedulers, of a rate of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    found = schedule if isinstance(schedule, list) else [schedule]
    built = [PARAM_SCHEDULERS.build(dict(dict(end=epochs), **one, optimizer=optimizer)) for one in found]
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in built:
            for _ in range(1 if scheduler.by_epoch else steps):
                scheduler.step()
    return rates


@pytest.mark.parametrize('name', PRETRAINING)
def test_lr_goes_with_the_square_root_of_the_batch_unless_it_is_given(name):
    cfg, before = load_config(name), load_config(name)
    fit_recipe(cfg, batch_size=32)
    base = before.auto_scale_lr.base_batch_size
    assert cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 32
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(before.optim_wrapper.optimizer.lr * math.sqrt(32 / base))
    fit_recipe(cfg, batch_size=64, lr=3e-4)
    assert cfg.optim_wrapper.optimizer.lr == 3e-4
    assert cfg.auto_scale_lr is None


@pytest.mark.parametrize('processes', [1, 8])
def test_a_batch_is_one_of_all_processes_and_none_is_accumulated(processes, monkeypatch):
    cfg = load_config('ldae::ldae/vit-l_pca.py')
    assert cfg.optim_wrapper.accumulative_counts == 4
    fit_recipe(cfg, batch_size=32, processes=processes)
    monkeypatch.setenv('WORLD_SIZE', str(processes))
    cfg = prepare(cfg, LaunchOptions(launcher='pytorch'))
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(8e-4 * math.sqrt(32 * processes / 2048))
    assert cfg.batch_arithmetic.startswith(f'batch {processes} x 32 x 1 = {32 * processes} of {32 * processes}')


@pytest.mark.parametrize('name', PRETRAINING)
def test_an_image_size_is_that_of_the_model_and_of_all_that_is_read(name):
    cfg = load_config(name)
    fit_recipe(cfg, img_size=96)
    loaders = [cfg[f'{split}_dataloader'] for split in ('train', 'val', 'test') if cfg.get(f'{split}_dataloader')]
    assert {output_size(loader.dataset.pipeline) for loader in loaders} == {96}
    part = cfg.model.get('tokenizer') or cfg.model.backbone
    assert part.img_size == 96


def test_a_model_is_named_as_deit_names_it():
    cfg = load_config(PRETRAINING[0])
    fit_recipe(cfg, model='small')
    assert (cfg.model.backbone.arch.embed_dims, cfg.model.backbone.arch.num_layers) == (384, 12)
    fit_recipe(cfg, model='large')
    assert cfg.model.backbone.arch == 'large'


@pytest.mark.parametrize('name', [name for name in METHODS if name != 'ldae'])
def test_every_method_takes_another_recipe(name):
    if name == 'dino':
        pytest.importorskip('lightly')
    cfg = load_config(METHODS[name])
    fit_recipe(cfg, epochs=30, batch_size=64, img_size=96, model='small')
    assert (cfg.train_cfg.max_epochs, cfg.auto_scale_lr.base_batch_size) == (30, 64)
    assert output_size(cfg.train_dataloader.dataset.pipeline) == 96
    init_default_scope('mmpretrain')
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    assert model.backbone.embed_dims == 384
    images = torch.zeros(2, 3, 96, 96)
    inputs = images if FACTS[name].views == 1 else [images, images]
    MessageHub.get_current_instance().update_info('max_iters', 10)
    assert torch.isfinite(model.loss(inputs, None)['loss'])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(img_size=100), '--img-size 100 is not a multiple of the patch size, 16'),
        (dict(model='enormous'), 'enormous'),
        (dict(epochs=0), 'epochs=0'),
        (dict(batch_size=-1), 'batch_size=-1'),
        (dict(lr=0.0), 'lr=0'),
    ],
)
def test_bad_values_are_one_line(options, message):
    with pytest.raises(ConfigError, match=message) as error:
        fit_recipe(load_config(PRETRAINING[0]), **options)
    assert '\n' not in str(error.value)
