# SPDX-License-Identifier: Apache-2.0
"""Public names of a package that are imported when they are asked for: torch and mmpretrain take seconds."""

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any


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
