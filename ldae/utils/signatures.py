# SPDX-License-Identifier: Apache-2.0
"""The options of a component, held against the signature of what it builds: unknown, missing or of another type."""

import inspect
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, get_type_hints

from .errors import ConfigError, nearest, similar
from .ranges import check_value, hints_of

# What builders take out of a component's dict before they call it.
OF_THE_BUILDER = {'type', '_scope_', '_delete_'}
OF_THE_SLOT = {
    'default_hooks': {'priority'},
    'custom_hooks': {'priority'},
    'param_scheduler': {'convert_to_iter_based'},
    'optim_wrapper': {'optimizer', 'paramwise_cfg', 'constructor'},
}
# Options that a hook gives to what it builds later.
PASSED_ON = dict.fromkeys(
    ('EMAHook', 'SkipAwareEMAHook'), ('momentum', 'interval', 'update_buffers', 'gamma')
)
SURELY_LIKE = 0.8  # where other options may be meant for something else
# Only here are all options those of the config: elsewhere builders, or the component around, give some themselves.
# Of parts of a layer, which builders of mmcv take options out of too.
PARTS = re.compile(r'\.(norm|act|conv|upsample|dropout|pad|drop|ffn|attn)_cfgs?\b')
COMPLETE = ('dataset', 'pipeline', 'default_hooks', 'custom_hooks')


class Signature:
    """Names, types and required names of a constructor's options, those that ``**kwargs`` pass on included."""

    def __init__(self, component: Callable) -> None:
        self.component = component
        self.types: dict[str, Any] = {}
        self.hints: dict[str, Any] = {}  # as `types`, with ranges and choices
        self.required: set[str] = set()
        # Whether options beyond those known may be meant for something that can't be seen from here.
        self.is_open = self._collect(component)

    def _collect(self, component: Callable) -> bool:
        if not inspect.isclass(component):
            return self._add(component) is not None
        for cls in component.__mro__:
            if cls is object or '__init__' not in vars(cls):
                continue  # a class without a constructor of its own has the next one's
            rest = self._add(cls.__init__)
            if rest is None:
                return False
            if not passes_on(cls.__init__, rest):
                return True
        return False

    def _add(self, function: Callable) -> str | None:
        """Take a function's options in; the name of what holds all others, if it takes them."""
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):
            return ''  # written in C
        is_first, rest = not self.types, None
        for parameter in parameters:
            if parameter.kind is parameter.VAR_KEYWORD:
                rest = parameter.name
            elif parameter.kind is not parameter.VAR_POSITIONAL and parameter.name != 'self':
                if is_first and parameter.default is parameter.empty:
                    self.required.add(parameter.name)  # a parent's may be given by the child
                self.types.setdefault(parameter.name, Any)
            if is_ours(function):
                continue
            if parameter.annotation is bool and isinstance(parameter.default, bool):
                self.types[parameter.name] = self.hints[parameter.name] = (
                    bool  # as far as other packages' annotations go
                )
        if is_ours(function):
            self._add_types(function)
        return rest

    def _add_types(self, function: Callable) -> None:
        try:
            types, hints = get_type_hints(function), hints_of(function)
        except (NameError, TypeError):
            return
        for name, hint in hints.items():
            if self.types.get(name) is Any:
                self.types[name], self.hints[name] = types[name], hint


def passes_on(constructor: Callable, rest: str) -> bool:
    """Whether a constructor gives its ``**rest`` to the next class's, and not to something else."""
    try:
        source = inspect.getsource(constructor)
    except (OSError, TypeError):
        return False
    return bool(re.search(rf'super\([^)]*\)\.__init__\((?:[^()]|\([^()]*\))*\*\*{rest}\b', source))


def is_ours(component: Callable) -> bool:
    """Whether annotations can be relied on: other packages write ``x: int = None``."""
    return getattr(component, '__module__', '').split('.')[0] == 'ldae'


@cache
def signature_of(component: Callable) -> Signature:
    """The signature, read once."""
    return Signature(component)


def check_options(where: str, component: Callable, options: Mapping, slot: str = '') -> None:
    """Raise ConfigError for an option that ``component`` doesn't take, lacks, or takes in another type only."""
    if PARTS.search(where):
        return
    signature = signature_of(component)
    name = getattr(component, '__name__', str(component))
    of_the_slot = OF_THE_SLOT.get(slot, set())
    given = set(options) - OF_THE_BUILDER - of_the_slot
    known = {*signature.types, *of_the_slot, *PASSED_ON.get(name, ())}
    for option in sorted(given - known):
        hint = similar(option, known, SURELY_LIKE) if signature.is_open else nearest(option, known)
        if hint or not signature.is_open:
            hint = hint or f'; it has {", ".join(sorted(known)) or "none"}'
            raise ConfigError(f'{where}: {name} has no option {option!r}{hint}')
    if slot in COMPLETE:
        missing = sorted(signature.required - given)
        if missing:
            raise ConfigError(f'{where}: {name} needs {", ".join(missing)}')
    for option in sorted(given & set(signature.hints)):
        check_value(f'{where}: {name}.{option}', options[option], signature.hints[option])
