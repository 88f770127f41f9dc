# SPDX-License-Identifier: Apache-2.0
"""Processes of a distributed run that agree on values and on errors; a run of one process agrees with itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.dist import all_gather_object, broadcast_object_list

from .errors import ConfigError


def from_main_process(value: Any) -> Any:
    """The main process's value, on all."""
    values = [value]
    broadcast_object_list(values)
    return values[0]


@contextmanager
def failing_together() -> Iterator[None]:
    """An error of one process becomes one of all, so that none waits for it in vain; all must come here."""
    error = None
    try:
        yield
    except ConfigError as raised:
        error = raised
    message = next(filter(None, all_gather_object(str(error) if error else None)), None)
    if message is not None:
        raise ConfigError(message) from error
