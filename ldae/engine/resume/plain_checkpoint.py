# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of plain data, which torch's safe loading opens."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner

from ldae.engine.hook import LDAEHook
from ldae.registry import HOOKS

HISTORY = 'history_buffer'


@HOOKS.register_module()
class PlainCheckpointHook(LDAEHook):
    """Replace objects in a checkpoint by tensors and builtin types when it is saved, and rebuild them when it is loaded.

    mmengine 0.10.7 pickles ``HistoryBuffer`` objects into every checkpoint, which ``torch.load(weights_only=True)``, the
    default since torch 2.6, refuses."""

    # After hooks that change the checkpoint before it is saved (EMA).
    priority = 'VERY_LOW'

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        for key, value in checkpoint.items():
            if not key.endswith('state_dict'):
                checkpoint[key] = to_plain(value)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
        for name, value in scalars.items():
            if isinstance(value, dict) and value.get('kind') == HISTORY:
                log, count = value['log'].numpy(), value['count'].numpy()
                scalars[name] = HistoryBuffer(log, count, value['max_length'])


def to_plain(value: Any) -> Any:
    """Tensors, numbers, strings, None, and lists, tuples and dicts of them; anything else becomes None."""
    if isinstance(value, HistoryBuffer):
        log, count = (torch.as_tensor(np.asarray(array, dtype=np.float64)) for array in value.data)
        return dict(kind=HISTORY, log=log, count=count, max_length=value.max_length)
    if isinstance(value, Mapping):
        return {to_plain(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        items = [to_plain(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, np.ndarray):
        return torch.as_tensor(value) if value.dtype.kind in 'biuf' else to_plain(value.tolist())
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, bool | int | float | str | torch.Tensor) else None
