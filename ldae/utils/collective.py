# SPDX-License-Identifier: Apache-2.0
"""Processes of a distributed run that agree on values and on errors; a run of one process agrees with itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import broadcast_object_list, get_world_size

from .errors import ConfigError


def from_main_process(value: Any) -> Any:
    """The main process's value, on all."""
    values = [value]
    broadcast_object_list(values)
    return values[0]


def gathered(value: Any) -> list[Any]:
    """The values of all processes, by rank, on all; anything that can be pickled."""
    values = [value] * get_world_size()
    if len(values) > 1:
        torch.distributed.all_gather_object(values, value)
    return values


@contextmanager
def failing_together() -> Iterator[None]:
    """An error of one process becomes one of all, so that none waits for it in vain; all must come here."""
    error = None
    try:
        yield
    except ConfigError as raised:
        error = raised
    message = next(filter(None, gathered(str(error) if error else None)), None)
    if message is not None:
        raise ConfigError(message) from error
