# SPDX-License-Identifier: Apache-2.0
"""A run that is resumed with another config: what it says, and with ``new_schedule`` what it does."""

import itertools
import logging
import math
from contextlib import nullcontext

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from ldae.launch import build_runner, prepare
from ldae.utils import ConfigError

ARCH = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
NUMBER = itertools.count()
STEPS = 2  # an epoch of 32 images


def schedules(epochs: float, by_step: bool = True) -> list[dict]:
    """The recipes': an epoch of warm-up, then a cosine to the end."""
    unit = dict(by_epoch=True, convert_to_iter_based=by_step)
    return [
        dict(type='LinearLR', start_factor=0.25, begin=0, end=1, **unit),
        dict(type='CosineAnnealingLR', T_max=epochs - 1, eta_min=1e-5, begin=1, end=epochs, **unit),
    ]


def closed_form(step: int, lr: float, epochs: int) -> float:
    warm_up, end = STEPS, STEPS * epochs
    if step < warm_up:  # reaches its end at the last of its steps
        return lr * (0.25 + 0.75 * step / (warm_up - 1))
    done = min((step - warm_up) / (end - warm_up), 1)
    return 1e-5 + (lr - 1e-5) * (1 + math.cos(math.pi * done)) / 2


@pytest.fixture
def config(make_dataloader, tmp_path):
    def config(epochs=2, lr=1e-2, images=32, ema=False, param_scheduler=(), optimizer=None, length=None, **options):
        ema = dict(ema=dict(type='ldae.SkipAwareEMAHook', momentum=0.1, in_place=ema == 'in place')) if ema else {}
        return Config(
            dict(
                default_scope='mmpretrain',
                model=dict(
                    type='ldae.LDAE',
                    data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[73.0], std=[90.0]),
                    tokenizer=dict(type='ldae.PixelTokenizer', img_size=28, patch_size=7, in_channels=1),
                    noiser=dict(type='ldae.GaussianNoiser'),
                    backbone=dict(type='ldae.LDAEViT', arch=ARCH),
                ),
                train_dataloader=dict(make_dataloader(images), sampler=dict(type='DefaultSampler', shuffle=True)),
                train_cfg=length or dict(by_epoch=True, max_epochs=epochs),
                optim_wrapper=dict(
                    optimizer=dict(dict(type='AdamW', lr=lr, weight_decay=0.1), **(optimizer or {})), **options
                ),
                param_scheduler=schedules(epochs) if param_scheduler == () else param_scheduler,
                default_hooks=dict(
                    logger=dict(type='LoggerHook', interval=1),
                    checkpoint=dict(
                        type='CheckpointHook',
                        interval=1,
                        step_interval=1,
                        by_epoch=not (length and 'max_iters' in length),
                    ),
                    **ema,
                ),
                log_level='ERROR',
                randomness=dict(seed=0),
                work_dir=str(tmp_path / 'run'),
                experiment_name=f'{tmp_path.name}_{next(NUMBER)}',
                visualizer=dict(type='UniversalVisualizer', vis_backends=[]),
            )
        )

    return config


class BrokenOff(Exception):
    pass


class Rates(Hook):
    """The learning rate of each step, and the lines that the run has warned with."""

    priority = 'LOWEST'

    def __init__(self, runner, stop: int | None = None) -> None:
        self.stop = stop
        self.lrs, self.lines, self.weights = {}, [], None
        runner.logger.setLevel(logging.WARNING)
        handler = logging.Handler()
        handler.emit = lambda record: self.lines.append(record.getMessage())
        runner.logger.addHandler(handler)

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if self.weights is None:
            self.weights = {name: value.clone() for name, value in runner.model.state_dict().items()}
        self.lrs[runner.iter] = runner.optim_wrapper.optimizer.param_groups[0]['lr']

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter + 1 == self.stop:
            raise BrokenOff

    @property
    def said(self) -> list[str]:
        return [line.removeprefix('Resumed: ') for line in self.lines if line.startswith('Resumed: ')]


@pytest.fixture
def train():
    def train(cfg, stop=None, **options) -> Rates:
        runner = build_runner(prepare(cfg, options and _Options(**options)))
        rates = Rates(runner, stop)
        runner.register_hook(rates)
        with nullcontext() if stop is None else pytest.raises(BrokenOff):
            runner.train()
        rates.runner = runner
        return rates

    return train


class _Options:
    def __init__(self, **options) -> None:
        vars(self).update(options)


def test_an_unchanged_config_is_resumed_without_a_word(config, train):
    train(config())
    assert train(config(), resume='auto').said == []


def test_what_the_checkpoint_overrides_is_said_a_line_each(config, train):
    train(config())
    changed = config(epochs=4, lr=2e-2, images=64, optimizer=dict(weight_decay=0.2))
    resumed = train(changed, resume='auto')
    assert resumed.said == [
        'train_cfg.max_epochs: 4 now, 2 before',
        'training images: 64 now, 32 before',
        'optimizer lr: 0.01 of the checkpoint, not 0.02 of the config',
        'optimizer weight_decay: 0.1 of the checkpoint, not 0.2 of the config',
        'param_scheduler[0] in steps: total_iters=1, end=2 of the checkpoint, not total_iters=3, end=4 of the config',
        'param_scheduler[1] in steps: T_max=2, begin=2, end=4 of the checkpoint, not T_max=12, begin=4, end=16 of the config',
        'the schedules of the checkpoint end at step 4 of 12: from there on lr stays as it is',
        'with --new-schedule, the config goes first',
    ]
    assert resumed.lrs.keys() == set(range(4, 12))
    assert len(set(resumed.lrs.values())) == 1


@pytest.mark.parametrize('by_step', [True, False])
def test_a_longer_training_with_the_new_schedule_has_the_rates_of_one_that_began_with_it(config, train, by_step):
    new = dict(epochs=5, lr=3e-2, optimizer=dict(weight_decay=0.3), param_scheduler=schedules(5, by_step))
    train(config())
    old = torch.load(f'{config().work_dir}/epoch_2.pth', weights_only=True)
    resumed = train(config(**new), resume='auto', new_schedule=True)
    whole = train(Config(dict(config(**new), work_dir=f'{config().work_dir}_whole')))
    assert resumed.lrs == {step: lr for step, lr in whole.lrs.items() if step >= 4}
    if by_step:
        for step, lr in whole.lrs.items():
            assert lr == pytest.approx(closed_form(step, 3e-2, 5), rel=1e-9), step
    assert 'optimizer weight_decay: 0.3 of the config, not 0.1 of the checkpoint' in resumed.said
    group = resumed.runner.optim_wrapper.optimizer.param_groups[0]
    assert group['weight_decay'] == 0.3
    for name, value in old['state_dict'].items():
        assert torch.equal(resumed.weights[name], value)
    steps = [state['step'].item() for state in resumed.runner.optim_wrapper.optimizer.state.values()]
    assert set(steps) == {10.0}


def test_a_schedule_that_ends_too_early_is_stretched_to_the_new_end(config, train):
    train(config())
    resumed = train(config(epochs=4, param_scheduler=schedules(2)), resume='auto', new_schedule=True)
    assert resumed.lrs == {step: pytest.approx(closed_form(step, 1e-2, 4)) for step in range(4, 8)}


def test_epochs_of_another_length_end_where_the_schedule_does(config, train):
    train(config())
    resumed = train(config(epochs=4, images=64), resume='auto', new_schedule=True)
    whole = train(Config(dict(config(epochs=4, images=64), work_dir=f'{config().work_dir}_whole')))
    assert list(resumed.lrs.values()) == list(whole.lrs.values())[8:]


def test_resumed_in_the_middle_of_an_epoch(config, train):
    train(config(), stop=3)
    resumed = train(config(epochs=3), resume='auto', new_schedule=True)
    assert resumed.lrs == {step: pytest.approx(closed_form(step, 1e-2, 3)) for step in range(3, 6)}


def test_a_loop_by_step(config, train):
    cosine = dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False)
    first = dict(by_epoch=False, max_iters=3)
    options = dict(param_scheduler=[dict(cosine, T_max=3)])
    train(config(length=first, **options))
    options = dict(length=dict(by_epoch=False, max_iters=6), param_scheduler=[dict(cosine, T_max=6)])
    said = train(config(**options), resume=f'{config().work_dir}/iter_3.pth').said
    assert 'train_cfg.max_iters: 6 now, 3 before' in said
    resumed = train(config(**options), resume=f'{config().work_dir}/iter_3.pth', new_schedule=True)
    assert resumed.lrs == {step: pytest.approx(1e-2 * (1 + math.cos(math.pi * step / 6)) / 2) for step in range(3, 6)}


def test_fewer_epochs_than_were_trained(config, train):
    train(config())
    with pytest.raises(ConfigError, match=r'has done 2 epochs, and train_cfg.max_epochs is 1: raise it'):
        train(config(epochs=1, param_scheduler=None), resume='auto')


@pytest.mark.parametrize('where', ['in place', 'beside'])
def test_the_weights_go_on_without_their_average(config, train, where):
    train(config(ema=where))
    saved = torch.load(f'{config().work_dir}/epoch_2.pth', weights_only=True)
    resumed = train(config(epochs=3, ema=False), resume='auto')
    assert (
        'EMA: the config has no EMAHook: the average of the weights ends here, the weights themselves go on'
        in resumed.said
    )
    for name, value in resumed.weights.items():
        weight = saved['state_dict'][name] if where == 'beside' else saved['ema_state_dict'][f'module.{name}']
        assert torch.equal(value, weight), name


def test_another_optimizer(config, train):
    train(config())
    other = config(epochs=3, lr=0.5)
    other.optim_wrapper.optimizer = dict(type='SGD', lr=0.5, momentum=0.9)
    with pytest.raises(ConfigError, match="optimizer is not the config's SGD, but AdamW: resume with that"):
        train(Config(other.to_dict()), resume='auto')
    resumed = train(Config(other.to_dict()), resume='auto', new_schedule=True)
    assert "optimizer: the checkpoint's moments don't fit: they begin anew" in resumed.said
    assert resumed.lrs == {step: pytest.approx(closed_form(step, 0.5, 3)) for step in (4, 5)}


def test_other_groups_of_parameters_keep_their_moments_by_name(config, train):
    train(config())
    groups = dict(paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0))
    with pytest.raises(ConfigError, match='has other groups of parameters'):
        train(config(epochs=3, **groups), resume='auto')
    saved = torch.load(f'{config().work_dir}/epoch_2.pth', weights_only=True)
    names = saved['settings']['optimizers']['']['names']
    before = {names[i]: state['exp_avg'] for i, state in saved['optimizer']['state'].items()}
    cfg = config(epochs=2, **groups)
    resumed = train(cfg, resume='auto', new_schedule=True)
    optimizer = resumed.runner.optim_wrapper.optimizer
    assert len(optimizer.param_groups) == 2
    for name, param in resumed.runner.model.named_parameters():
        if param.requires_grad:
            assert torch.equal(optimizer.state[param]['exp_avg'], before[name]), name


@pytest.mark.parametrize(
    ('lost', 'line'),
    [
        ('optimizer', 'optimizer: the checkpoint has no state of it: its moments begin anew'),
        (
            'param_schedulers',
            "param_scheduler: the 2 of the config, since the checkpoint's 0 are of another number or of other kinds",
        ),
    ],
)
def test_what_a_checkpoint_lacks_is_taken_from_the_config_at_the_right_step(config, train, lost, line):
    train(config(epochs=3), stop=5)
    path = f'{config().work_dir}/iter_5.pth'
    saved = torch.load(path, weights_only=True)
    del saved[lost]
    torch.save(saved, path)
    resumed = train(config(epochs=3), resume=path)
    assert resumed.said == [line]
    assert resumed.lrs == {5: pytest.approx(closed_form(5, 1e-2, 3))}


def test_a_config_without_schedules_goes_on_at_its_own_rate(config, train):
    train(config())
    resumed = train(config(epochs=3, lr=5e-3, param_scheduler=None), resume='auto')
    assert set(resumed.lrs.values()) == {5e-3}
    assert any(
        line.startswith("param_scheduler: the 0 of the config, since the checkpoint's 2") for line in resumed.said
    )


def test_new_schedule_needs_a_run_to_resume(config):
    with pytest.raises(ConfigError, match='--new-schedule is for a run that is resumed'):
        prepare(config(), _Options(new_schedule=True))


def test_a_checkpoint_without_these_notes_is_compared_all_the_same(config, train):
    train(config())
    path = f'{config().work_dir}/epoch_2.pth'
    saved = torch.load(path, weights_only=True)
    del saved['settings']
    torch.save(saved, path)
    other = config(epochs=3)
    other.optim_wrapper.optimizer = dict(type='SGD', lr=0.5, momentum=0.9)
    with pytest.raises(ConfigError, match="not the config's SGD, but one with the options amsgrad, betas"):
        train(other, resume='auto')
    assert 'optimizer lr: 0.01 of the checkpoint, not 0.5 of the config' in train(config(lr=0.5), resume='auto').said
