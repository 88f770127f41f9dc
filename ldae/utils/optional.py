# SPDX-License-Identifier: Apache-2.0
"""Libraries that only some options need."""

import re
import shlex
from importlib import import_module, metadata
from types import ModuleType

from .errors import ConfigError


def import_extra(module: str, extra: str, user: str) -> ModuleType:
    """Import an optional library for ``user``, or say in one line how to install what an extra of ldae consists of."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition('.')[0]:
            raise  # it is there, and lacks something itself
        needed = requirements_of(extra) or [error.name]
        raise ConfigError(
            f'{user} needs the library {error.name}, which is not installed: pip install {shlex.join(needed)}'
        ) from error


def requirements_of(extra: str) -> list[str]:
    """The requirements that an extra adds, by the metadata of the installed ldae; none if it is run without being installed."""
    try:
        lines = metadata.requires('ldae') or ()
    except metadata.PackageNotFoundError:
        return []
    return [line.partition(';')[0].strip() for line in lines if re.search(rf'extra == ["\']{extra}["\']', line)]
