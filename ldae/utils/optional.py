# SPDX-License-Identifier: Apache-2.0
"""Libraries that only some options need, and public names of a package that are imported when they are asked for."""

import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module, metadata
from types import ModuleType
from typing import Any

from .errors import ConfigError


def import_extra(module: str, extra: str, user: str) -> ModuleType:
    """Import an optional library for ``user``, or say in one line how to install what an extra of ldae consists of."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        library = module.partition('.')[0]
        if error.name not in (library, module):
            raise  # it is there, and lacks something itself
        needed = requirements_of(extra) or [library]
        raise ConfigError(
            f'{user} needs the library {library}, which is not installed: pip install {shlex.join(needed)}'
        ) from error


def requirements_of(extra: str) -> list[str]:
    """The requirements that an extra adds, by the metadata of the installed ldae; none if it is run without being installed."""
    try:
        lines = metadata.requires('ldae') or ()
    except metadata.PackageNotFoundError:
        return []
    return [line.partition(';')[0].strip() for line in lines if re.search(rf'extra == ["\']{extra}["\']', line)]


def lazy_names(
    package: str, owners: Mapping[str, Iterable[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package that shows names of ``owners``: module -> those that it owns."""
    names = {name: owner for owner, owned in owners.items() for name in owned}

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        return getattr(import_module(names[name]), name)

    return get, lambda: sorted({*vars(import_module(package)), *names})
