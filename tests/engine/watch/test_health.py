# SPDX-License-Identifier: Apache-2.0
import json
import math

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook

from ldae.engine import HealthHook
from ldae.engine.non_finite.skip_non_finite import gradient_norm
from ldae.engine.watch.health import loss_by_level
from ldae.evaluation import FeatureStatistics, pooled_features
from ldae.utils import ConfigError


class Watch(Hook):
    """Takes in every step what the hook may only take at its intervals."""

    def __init__(self):
        self.norms, self.losses, self.batches = [], [], []

    def before_train(self, runner):
        optimizer = runner.optim_wrapper.optimizer
        optimizer.register_step_pre_hook(lambda *_: self.norms.append(self.norm(runner.model)))

    def norm(self, model):
        gradients = [p.grad.double().numpy().ravel() for p in model.parameters() if p.grad is not None]
        return np.linalg.norm(np.concatenate(gradients))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(runner.model.head.recent)
        self.batches.append(data_batch)


def scalars(tmp_path):
    lines = [json.loads(line) for line in next(tmp_path.rglob('scalars.json')).read_text().splitlines()]
    return [line for line in lines if 'health/grad_norm' in line]


def test_figures_are_those_of_the_steps_before(make_runner, tmp_path):
    watch = Watch()
    runner = make_runner([HealthHook(interval=4, num_images=32, num_levels=5), watch])
    model = runner.train()
    (line,) = scalars(tmp_path)
    assert line['step'] == 4
    assert line['health/grad_norm'] == pytest.approx(watch.norms[-1], rel=1e-5)

    t, loss = (torch.cat(parts).numpy() for parts in zip(*watch.losses, strict=True))
    for first in range(0, 1000, 200):
        inside = (t >= first) & (t < first + 200)
        assert line[f'health/loss_t{first}'] == pytest.approx(loss[inside].mean(), rel=1e-5)

    model.eval()
    statistics = FeatureStatistics()
    for batch in watch.batches[-2:]:
        with torch.no_grad():
            statistics.add(pooled_features(model, model.data_preprocessor(batch)['inputs']))
    for key, value in statistics.summary().items():
        if key != 'images':
            assert line[f'health/{key}'] == pytest.approx(value), key


def test_weights_log_and_random_streams_are_the_same_with_and_without(make_runner):
    def run(hooks):
        runner = make_runner(hooks)
        state = runner.train().state_dict()
        losses = runner.message_hub.get_scalar('train/loss').data[0]
        return torch.cat([value.flatten().float() for value in state.values()]), losses, torch.rand(1)

    with_hook, without = run([HealthHook(interval=1, num_images=16)]), run([])
    assert torch.equal(with_hook[0], without[0])
    assert np.array_equal(with_hook[1], without[1])
    assert torch.equal(with_hook[2], without[2])


def test_with_accumulated_batches_the_norm_is_that_of_the_last_update(make_runner, tmp_path):
    watch = Watch()
    optim_wrapper = dict(optimizer=dict(type='SGD', lr=1e-3), accumulative_counts=2)
    make_runner([HealthHook(interval=3, num_images=16), watch], optim_wrapper=optim_wrapper).train()
    assert len(watch.norms) == 2
    (line,) = scalars(tmp_path)
    assert line['step'] == 3
    assert line['health/grad_norm'] == pytest.approx(watch.norms[0], rel=1e-5)


@pytest.mark.parametrize('scale', [1.0, 65536.0])
def test_the_norm_is_without_the_scale_that_a_fused_optimizer_divides_by(scale):
    parameter = torch.nn.Parameter(torch.ones(4))
    optimizer = torch.optim.AdamW([parameter], lr=1e-3, fused=True)
    scaler, hook = torch.amp.GradScaler('cpu', init_scale=scale), HealthHook()
    hook._wants_norm = True
    optimizer.register_step_pre_hook(hook._take_norm)
    scaler.scale(parameter.sum()).backward()
    scaler.step(optimizer)
    assert hook._norms[id(optimizer)].item() == pytest.approx(2)


def test_where_gradients_are_clipped_the_norm_is_the_one_before(make_runner, tmp_path):
    optim_wrapper = dict(optimizer=dict(type='SGD', lr=1e-3), clip_grad=dict(max_norm=1e-3))
    runner = make_runner([HealthHook(interval=2, num_images=16)], optim_wrapper=optim_wrapper, epochs=1)
    runner.train()
    (line,) = scalars(tmp_path)
    assert line['health/grad_norm'] == runner.message_hub.get_scalar('train/grad_norm').current() > 1e-3


def test_nothing_is_read_from_the_device_between_intervals():
    hook, batch = HealthHook(interval=100), dict(inputs=torch.zeros(2, device='meta'))
    head = torch.nn.Module()
    head.recent = torch.zeros(2, dtype=torch.int64, device='meta'), torch.zeros(2, device='meta')
    model = torch.nn.Module()
    model.head, model.backbone = head, head
    runner = type('Runner', (), dict(model=model, iter=10, optim_wrapper=None))
    hook.before_train_iter(runner, 0, batch)
    hook.after_train_iter(runner, 0, batch)
    params = [torch.zeros(3, device='meta', requires_grad=True)]
    params[0].grad = torch.zeros(3, device='meta')
    assert gradient_norm(torch.optim.SGD(params)).is_meta


def test_levels_that_were_not_drawn_are_empty_and_one_bad_loss_stays_in_its_level():
    t, loss = torch.tensor([0, 9, 10, 99]), torch.tensor([1.0, 3.0, math.nan, 5.0])
    sums = loss_by_level(t, loss, 100, 10)
    assert sums[0].tolist() == [4.0, 2.0]
    assert sums[1, 0].isnan()
    assert sums[9].tolist() == [5.0, 1.0]
    assert not sums[2:9].any()


@pytest.mark.parametrize('option', ['interval', 'num_images', 'num_levels'])
def test_bad_options_are_one_clear_line(option):
    with pytest.raises(ConfigError, match=f'HealthHook.{option}=0'):
        HealthHook(**{option: 0})
