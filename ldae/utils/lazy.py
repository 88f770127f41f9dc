# SPDX-License-Identifier: Apache-2.0
"""Public names of a package that are imported when they are asked for: torch and mmpretrain take seconds."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package that shows ``names``: name -> the module that owns it."""

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        return getattr(import_module(names[name]), name)

    return get, lambda: sorted({*vars(import_module(package)), *names})
