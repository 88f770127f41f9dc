# SPDX-License-Identifier: Apache-2.0
"""States of optimizers and schedules that a step would trip over, or go on from in silence."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch.optim import SGD, Adafactor, AdamW

from ldae.engine.resume.check_optimizer import check_moments, check_options, check_schedules
from ldae.utils import ConfigError

NAN = float('nan')


def stepped(kind: type, **options) -> tuple[torch.optim.Optimizer, dict]:
    """An optimizer of two parameters after a step, and a copy of its state."""
    params = [torch.nn.Parameter(torch.ones(shape)) for shape in ((3, 4), (4,))]
    optimizer = kind([dict(params=params[:1]), dict(params=params[1:], weight_decay=0.0)], lr=0.1, **options)
    sum(param.square().sum() for param in params).backward()
    optimizer.step()
    return optimizer, copy.deepcopy(optimizer.state_dict())


def check(optimizer: torch.optim.Optimizer, state: dict) -> None:
    check_options(optimizer, state['param_groups'])
    params = [param for group in optimizer.param_groups for param in group['params']]
    check_moments(params, state['state'], state['param_groups'])


@pytest.mark.parametrize(
    ('kind', 'options'),
    [
        (AdamW, {}),
        (AdamW, dict(amsgrad=True)),
        (AdamW, dict(fused=True)),
        (SGD, {}),
        (SGD, dict(momentum=0.9, nesterov=True)),
        (Adafactor, {}),
    ],
)
def test_what_an_optimizer_has_written_is_taken(kind, options):
    check(*stepped(kind, **options))


def change(**changes) -> Callable[[dict], None]:
    return lambda state: state['state'][0].update(changes)


def option(**changes) -> Callable[[dict], None]:
    return lambda state: state['param_groups'][1].update(changes)


@pytest.mark.parametrize(
    ('harm', 'place'),
    [
        (
            change(exp_avg=torch.zeros(2)),
            r'state\[0\].exp_avg cannot .* it is torch.float32 \(2,\), and its parameter \(3, 4\)',
        ),
        (change(exp_avg=torch.zeros(3, 4, dtype=torch.long)), r'state\[0\].exp_avg .*torch.int64'),
        (change(exp_avg='x'), r"state\[0\].exp_avg .* it is 'x'"),
        (change(exp_avg=torch.full((3, 4), NAN)), r'state\[0\].exp_avg .* negative, infinite or NaN'),
        (change(exp_avg_sq=torch.full((3, 4), -1.0)), r'state\[0\].exp_avg_sq .* negative, infinite or NaN'),
        *[
            (change(step=step), r'state\[0\].step .* counts no steps')
            for step in (NAN, -1, True, 0.5, torch.zeros(2), 'x')
        ],
        (lambda state: state['state'][0].clear(), 'some parameters have other moments'),
        (lambda state: state['state'].update({9: state['state'][0]}), 'there is no parameter 9'),
        *[(option(lr=lr), r'param_groups\[1\]') for lr in (NAN, -1, True, '1', None, float('inf'), torch.zeros(2))],
        (option(betas=(0.9, 3)), r'param_groups\[1\] .*Invalid beta'),
        (option(betas=(0.9,)), r'param_groups\[1\].betas'),
        (option(eps=-1.0), r'param_groups\[1\] .*Invalid epsilon'),
        (option(amsgrad=True), 'no max_exp_avg_sq, which amsgrad needs'),
        (option(amsgrad=None), r'param_groups\[1\].amsgrad'),
        (option(params=[0]), 'not numbered one by one'),
        (option(params=[True]), 'not numbered one by one'),
    ],
)
def test_what_it_would_trip_over_is_one_line(harm, place):
    optimizer, state = stepped(AdamW)
    harm(state)
    with pytest.raises(ConfigError, match=place) as info:
        check(optimizer, state)
    assert '\n' not in str(info.value)


def test_how_it_computes_is_its_own():
    optimizer, state = stepped(AdamW)
    hostile = dict(maximize=True, fused='x', foreach=[], capturable=True, differentiable=True)
    state['param_groups'][0].update(hostile)
    check(optimizer, state)
    assert {key: state['param_groups'][0][key] for key in hostile} == {
        key: optimizer.param_groups[0][key] for key in hostile
    }


SCHEDULE = dict(param_name='lr', begin=0, end=8, last_step=3, _global_step=4, base_values=[0.1, 0.1], by_epoch=False)
SCHEDULE |= dict(verbose=False, T_max=8, eta_min=0.0, eta_min_ratio=None)


@pytest.mark.parametrize(
    'harm',
    [
        dict(param_name='x'),
        dict(begin=NAN),
        dict(end='8'),
        dict(last_step=0.5),
        dict(_global_step=10**30),
        dict(base_values=[0.1]),
        dict(base_values=[0.1, NAN]),
        dict(by_epoch=torch.zeros(2)),
        dict(eta_min=[]),
        dict(T_max=True),
    ],
)
def test_a_schedule_that_cannot_go_on_is_one_line(harm):
    optimizer, _ = stepped(SGD)
    check_schedules(optimizer, [SCHEDULE], [dict(SCHEDULE, end=9, eta_min=None, eta_min_ratio=0.1, verbose='x')])
    with pytest.raises(ConfigError, match=rf'param_schedulers\[0\].{next(iter(harm))} cannot be gone on from'):
        check_schedules(optimizer, [SCHEDULE], [SCHEDULE | harm])
