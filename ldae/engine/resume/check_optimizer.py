# SPDX-License-Identifier: Apache-2.0
"""An optimizer's state in a checkpoint, held against the optimizer: a step would trip over it, or go on from it in silence."""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ldae.utils import ConfigError

#: Options of an optimizer that change how it computes and not what: always its own.
HOW = {'params', 'param_names', 'foreach', 'fused', 'capturable'}
HOW |= {'differentiable', 'maximize', 'decoupled_weight_decay'}
#: Moments that have the shape of their parameter, and those of them that are sums of squares. Fused optimizers write past
#: the end of smaller ones.
SQUARES = {'exp_avg_sq', 'max_exp_avg_sq', 'square_avg', 'sum'}
MOMENTS = SQUARES | {'exp_avg', 'momentum_buffer', 'grad_avg', 'acc_delta', 'exp_inf', 'prev'}


def check_options(optimizer: Optimizer, groups: Sequence[dict]) -> None:
    """Raise ConfigError unless the optimizer takes the options of each of its groups in a checkpoint."""
    numbers = [number for group in groups for number in group['params']]
    if any(type(number) is not int for number in numbers) or numbers != list(range(len(numbers))):
        raise ConfigError(_wrong('param_groups', 'its parameters are not numbered one by one'))
    for place, (own, group) in enumerate(zip(optimizer.param_groups, groups, strict=True)):
        group.update({key: own[key] for key in own.keys() & HOW - {'params'}})
        for key in own.keys() - HOW:
            if not _is_like(group.setdefault(key, own[key]), own[key]):  # a later torch may have more
                raise ConfigError(_wrong(f'param_groups[{place}].{key}', f'it is {_shown(group[key])}'))
        if (problem := _refusal(optimizer, group)) and not _refusal(optimizer, own):
            raise ConfigError(_wrong(f'param_groups[{place}]', problem))


def check_schedules(optimizer: Optimizer, own: Sequence[Mapping], states: Sequence[dict]) -> None:
    """Raise ConfigError unless schedules can go on with their states in a checkpoint, those of a config with the same keys."""
    for place, (mine, state) in enumerate(zip(own, states, strict=True)):
        state.update({key: mine[key] for key in mine.keys() & {'verbose'}})
        for key, value in state.items():
            is_fit = _is_like(value, mine[key])
            if key.startswith('eta_min'):  # one of two is None
                is_fit = value is None or _is_like(value, 0.0)
            elif key in ('last_step', '_global_step'):
                is_fit = type(value) is int and -1 <= value < 2**31
            elif key == 'param_name':
                is_fit = isinstance(value, str) and value in optimizer.param_groups[0]
            if not is_fit:
                found = f'param_schedulers[{place}].{key} cannot be gone on from: it is {_shown(value)}'
                raise ConfigError(f"the checkpoint's {found}: use the checkpoint before it, or --new-schedule")


def _refusal(optimizer: Optimizer, options: Mapping[str, Any]) -> str:
    """Why its class doesn't take some options; '' if it does."""
    taken = inspect.signature(type(optimizer)).parameters.keys() & options.keys() - {'params'}
    try:
        type(optimizer)([torch.zeros(1, requires_grad=True)], **{key: options[key] for key in taken})
    except Exception as error:  # each class has its own
        return ' '.join(str(error).split())[:200] or type(error).__name__
    return ''


def _is_like(value: Any, own: Any) -> bool:
    """Whether a value can stand for the optimizer's own: finite where that is a number, as long where it is several."""
    if isinstance(own, list | tuple):
        return isinstance(value, list | tuple) and len(value) == len(own) and all(map(_is_like, value, own))
    if isinstance(own, Tensor) and own.numel() == 1 or type(own) in (int, float):
        value = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is type(own)


def check_moments(params: Sequence[Tensor], moments: Mapping[int, Mapping[str, Any]], groups: Sequence[dict]) -> None:
    """Raise ConfigError unless the moments are those of the parameters, of which they have the numbers."""
    if not isinstance(moments, Mapping):
        raise ConfigError(_wrong('state', f'it is {_shown(moments)}'))
    kinds = {frozenset(MOMENTS & set(state)) for state in moments.values()}
    if len(kinds) > 1:
        raise ConfigError(_wrong('state', 'some parameters have other moments than others'))
    if kinds and any(group.get('amsgrad') for group in groups) and 'max_exp_avg_sq' not in next(iter(kinds)):
        raise ConfigError(_wrong('state', 'it has no max_exp_avg_sq, which amsgrad needs'))
    for number, state in moments.items():
        if type(number) is not int or not 0 <= number < len(params):
            raise ConfigError(_wrong('state', f'there is no parameter {_shown(number)}'))
        for key, value in state.items():
            if problem := _problem(key, value, params[number]):
                raise ConfigError(_wrong(f'state[{number}].{key}', problem))


def _problem(key: str, value: Any, param: Tensor) -> str:
    if key == 'step':
        count = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
        is_count = type(count) in (int, float) and 0 <= count < 2**31 and count == int(count)
        return '' if is_count else f'it counts no steps: {_shown(value)}'
    if key not in MOMENTS or key == 'momentum_buffer' and value is None:
        return ''
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.shape != param.shape:
        found = f'{value.dtype} {tuple(value.shape)}' if isinstance(value, Tensor) else _shown(value)
        return f'it is {found}, and its parameter {tuple(param.shape)}'
    if not value.isfinite().all() or key in SQUARES and (value < 0).any():
        return 'it is negative, infinite or NaN'
    return ''


def _wrong(place: str, problem: str) -> str:
    return f"the checkpoint's optimizer.{place} cannot be gone on from: {problem}: use the checkpoint before it"


def _shown(value: Any) -> str:
    return ' '.join(repr(value).split())[:80]
