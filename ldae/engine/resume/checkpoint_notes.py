# SPDX-License-Identifier: Apache-2.0
"""Notes that a checkpoint holds beside its tensors, made safe before anything uses them: the file may be anybody's."""

import re
from collections.abc import Iterator
from typing import Any

import torch

from ldae.utils import ConfigError

STEP_FILE = 'iter_{}.pth'
#: Names of the checkpoints that training writes, and may delete.
OWN = re.compile(r'(?:epoch|iter|best)_[^/\\\0]*\.pth')
PARTS = ('meta', 'message_hub', 'optimizer', 'param_schedulers', 'progress', 'settings', 'state_dict', 'ema_state_dict')
COUNTS = ('epoch', 'iter', 'seed')
#: Of schedules' states.
NUMBERS = ('start_factor', 'end_factor', 'total_iters', 'begin', 'end', 'last_step', '_global_step', 'T_max', 'gamma')

#: Of optimizers' groups, what is true or false (or left to torch).
FLAGS = ('maximize', 'foreach', 'fused', 'capturable', 'differentiable', 'amsgrad', 'nesterov')
#: What is a number, or several.
RATES = ('lr', 'initial_lr', 'eps', 'weight_decay', 'momentum', 'dampening')


def is_own_file(name: Any) -> bool:
    """Whether a name is that of a checkpoint in the folder, as training gives them, and no path."""
    return isinstance(name, str) and OWN.fullmatch(name) is not None


def clean_checkpoint(content: Any, filename: str) -> None:
    """Take out of a checkpoint what mmengine would run or use as a path, in place.

    mmengine runs the text ``meta['config']`` when it resumes, and deletes the files that notes in ``message_hub`` name.
    Raises ConfigError if it isn't a checkpoint."""
    if not isinstance(content, dict):
        raise ConfigError(f'{filename} is not a checkpoint of a model: name the .pth file that training wrote')
    if isinstance(meta := content.get('meta'), dict):
        meta.pop('config', None)
    hub = content.get('message_hub')
    if isinstance(hub, dict) and isinstance(keys := hub.get('resumed_keys'), dict):
        hub['resumed_keys'] = {key: value for key, value in keys.items() if type(value) is bool}
    for where in _wrong(content):
        raise ConfigError(
            f'{filename}: {" ".join(where.split())[:99]} is of a wrong type, so that it cannot be resumed from: use the checkpoint before it'
        )
    info = hub.get('runtime_info') if isinstance(hub, dict) else None
    for key, value in dict(info).items() if isinstance(info, dict) else ():
        if key == 'keep_ckpt_ids':
            info[key] = [step for step in value if type(step) is int] if isinstance(value, list | tuple) else []
        elif key == 'step_checkpoint':
            info[key] = value if is_own_file(value) and value.startswith('iter_') else None
        elif isinstance(key, str) and key.startswith('best_ckpt'):
            name = re.split(r'[/\\]', value)[-1] if isinstance(value, str) else None
            info[key] = value if is_own_file(name) and name.startswith('best_') else None


def _is_count(value: Any, limit: int) -> bool:
    """Whether a value can be a number of steps, epochs or images, or a seed."""
    return type(value) is int and 0 <= value < limit


def _is_history(value: dict) -> bool:
    """Whether mmengine's HistoryBuffer can be made of this."""
    lists = [value.get(name) for name in ('log', 'count')]
    are_lists = all(isinstance(part, torch.Tensor) and part.ndim == 1 for part in lists)
    return are_lists and len(lists[0]) == len(lists[1]) and _is_count(value.get('max_length'), 2**63)


def _wrong(content: dict) -> Iterator[str]:
    """Places of values that are found out in the middle of a step only: of another type than training writes."""
    for key in PARTS:
        if not isinstance(content.get(key), dict | None) and not (
            key == 'param_schedulers' and type(content[key]) is list
        ):
            yield key
    progress, schedulers, optimizer = (content.get(key) for key in ('progress', 'param_schedulers', 'optimizer'))
    meta, hub = content.get('meta'), content.get('message_hub')
    for key in COUNTS if isinstance(meta, dict) else ():
        value, is_seed = meta.get(key, 0), key == 'seed'
        if not (is_seed and value is None) and not _is_count(value, 2**32 if is_seed else 2**31):
            yield f'meta.{key}'
    scalars = hub.get('log_scalars') if isinstance(hub, dict) else None
    for key, value in scalars.items() if isinstance(scalars, dict) else ():
        if isinstance(value, dict) and not _is_history(value):
            yield f'message_hub.log_scalars.{key}'
    settings = content.get('settings') or {}
    for key, value in settings.items() if isinstance(settings, dict) else ():
        notes = value.items() if key == 'optimizers' and isinstance(value, dict) else ()
        if not notes and not _is_count(value, 2**53):
            yield f'settings.{key}'
        for name, note in notes:
            names = [*note.get('names', [None]), note.get('type')] if isinstance(note, dict) else [None]
            if not all(isinstance(each, str) for each in names):
                yield f'settings.optimizers.{name}'
    data = progress.get('data') if isinstance(progress, dict) else None
    for key, value in data.items() if isinstance(data, dict) else ():
        if not (key == 'sampler_seed' and value is None) and not _is_count(value, 2**53):
            yield f'progress.data.{key}'
    for number, state in enumerate(schedulers if isinstance(schedulers, list) else ()):
        for key, value in state.items() if isinstance(state, dict) else ():
            if not isinstance(value, str if key == 'param_name' else int | float if key in NUMBERS else object):
                yield f'param_schedulers[{number}].{key}'
    several = optimizer.values() if isinstance(optimizer, dict) and 'state' not in optimizer else [optimizer]
    for state in several:
        moments = state.get('state') if isinstance(state, dict) else None
        for key, value in moments.items() if isinstance(moments, dict) else ():
            if not isinstance(value, dict):
                yield f'optimizer.state.{key}'
        groups = state.get('param_groups') if isinstance(state, dict) else None
        for number, group in enumerate(groups if isinstance(groups, list) else ()):
            for key, value in group.items() if isinstance(group, dict) else ():
                is_pair = isinstance(value, list | tuple) and len(value) == 2
                pair = key != 'betas' or is_pair and all(isinstance(beta, int | float | torch.Tensor) for beta in value)
                rate = key not in RATES or not isinstance(value, str | dict | None)
                if not (pair and rate) or key in FLAGS and not isinstance(value, bool | None):
                    yield f'optimizer.param_groups[{number}].{key}'
