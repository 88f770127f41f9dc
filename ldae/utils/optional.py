# SPDX-License-Identifier: Apache-2.0
"""Libraries that only some options need."""

from importlib import import_module
from types import ModuleType

from .errors import ConfigError


def import_extra(module: str, extra: str, user: str) -> ModuleType:
    """Import an optional library for ``user``, or say in one line which extra of ldae installs it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition('.')[0]:
            raise  # it is there, and lacks something itself
        raise ConfigError(
            f"{user} needs the library {error.name}, which is not installed: pip install 'ldae[{extra}]'"
        ) from error
