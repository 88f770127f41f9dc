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

    Raises:
        ConfigError: It isn't a checkpoint.
    """
    if not isinstance(content, dict):
        raise ConfigError(f'{filename} is not a checkpoint of a model: name the .pth file that training wrote')
    if isinstance(meta := content.get('meta'), dict):
        meta.pop('config', None)
    hub = content.get('message_hub')
    if isinstance(hub, dict) and isinstance(keys := hub.get('resumed_keys'), dict):
        hub['resumed_keys'] = {key: value for key, value in keys.items() if type(value) is bool}
    for where in _wrong(content):
        raise ConfigError(
            f'{filename}: {where} is of a wrong type, so that it cannot be resumed from: use the checkpoint before it'
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


def _wrong(content: dict) -> Iterator[str]:
    """Places of values that are found out in the middle of a step only: of another type than training writes."""
    progress, schedulers, optimizer = (content.get(key) for key in ('progress', 'param_schedulers', 'optimizer'))
    meta = content.get('meta')
    for key in ('epoch', 'iter') if isinstance(meta, dict) else ():
        if not isinstance(meta.get(key, 0), int):
            yield f'meta.{key}'
    data = progress.get('data') if isinstance(progress, dict) else None
    for key, value in data.items() if isinstance(data, dict) else ():
        if isinstance(value, float | str | list | dict | torch.Tensor):
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
