# SPDX-License-Identifier: Apache-2.0
"""The options of a component, held against the signature of what it builds: unknown, missing, of another type or range."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from .errors import ConfigError, nearest
from .ranges import NaturalInt, PositiveInt, Share, check_value, hints_of

# What builders take out of a component's dict before they call it, and what they take out in one place of a config only.
BUILDER_OPTIONS = {'type', '_scope_', '_delete_'}
SLOT_OPTIONS = {
    'default_hooks': {'priority'},
    'custom_hooks': {'priority'},
    'param_scheduler': {'convert_to_iter_based'},
    'optim_wrapper': {'optimizer', 'paramwise_cfg', 'constructor'},
}
# What classes of mmengine and mmpretrain, and their children, don't look at, or only when it is too late.
AVERAGE = dict(momentum=Share, interval=PositiveInt, gamma=PositiveInt, update_buffers=bool)
TOPK = dict(topk=PositiveInt | list[PositiveInt])
FOREIGN_OPTIONS = {
    'BaseDataset': dict(indices=PositiveInt | list[int] | None),
    'MAEViT': dict(mask_ratio=Share),
    'EMAHook': dict(begin_iter=NaturalInt, begin_epoch=NaturalInt, **AVERAGE),
    'ClsHead': TOPK,
    'Accuracy': TOPK,
    'LoggerHook': dict(interval=PositiveInt),
}
CLOSE = 0.8  # how like a known option one must be to be a mistake, where others may be meant for something else
# mmcv's builders of these parts of a layer take options out too.
PARTS = re.compile(r'\.(norm|act|conv|upsample|dropout|pad|drop|ffn|attn)_cfgs?\b')
# Only here are all options those of the config: elsewhere builders, or the component around, give some themselves.
COMPLETE = ('dataset', 'pipeline', 'default_hooks', 'custom_hooks')


class Signature:
    """The options of a constructor or function, those that ``**kwargs`` pass on to the next class included.

    Attributes:
        hints: Their annotations, ``Any`` where there is none that can be relied on.
        required: Those without a default.
        is_open: Whether there may be others, meant for something that can't be seen from here.
    """

    def __init__(self, component: Callable) -> None:
        self.hints: dict[str, Any] = {}
        self.required: set[str] = set()
        self.is_open = self._collect(component)
        for cls in getattr(component, '__mro__', ()):
            foreign = FOREIGN_OPTIONS.get(cls.__name__, {})
            self.hints |= {k: hint for k, hint in foreign.items() if k in self.hints or self.is_open}

    def _collect(self, component: Callable) -> bool:
        if not inspect.isclass(component):
            return self._add(component) is not None
        fixed = None
        for cls in component.__mro__:
            if cls is object or '__init__' not in vars(cls):
                continue  # a class without a constructor of its own has the next one's
            rest = self._add(cls.__init__, fixed)
            if rest is None:
                return False
            given = passed_on(cls.__init__, rest)
            if given is None:
                return True
            fixed = given | (fixed or set())
        return False

    def _add(self, function: Callable, fixed: set[str] | None = None) -> str | None:
        """Take a function's options in, for a parent without those that children set; the name of its ``**kwargs``."""
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            return ''  # written in C
        hints, rest = hints_of(function), None
        for parameter in parameters:
            name = parameter.name
            if parameter.kind is parameter.VAR_KEYWORD:
                rest = name
            elif parameter.kind is not parameter.VAR_POSITIONAL and name not in {'self', *(fixed or ())}:
                if fixed is None and parameter.default is parameter.empty:
                    self.required.add(name)
                # Other packages write `x: int = None`: of theirs, only switches can be relied on.
                is_sure = is_ours(function) or hints.get(name) is type(parameter.default) is bool
                self.hints.setdefault(name, hints.get(name, Any) if is_sure else Any)
        return rest


def passed_on(constructor: Callable, rest: str) -> set[str] | None:
    """Arguments that a constructor sets by itself where it gives its ``**rest`` to the next class's; None if it doesn't."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(constructor)))
    except (OSError, TypeError, SyntaxError):
        return None
    named = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and re.match(r'super\(.*\)\.__init__$', ast.unparse(call.func)):
            given = {keyword.arg or ast.unparse(keyword.value) for keyword in call.keywords}
            # What it names as a string, it takes out of `rest` itself.
            return given - {rest, *named} if rest in given else None
    return None


def is_ours(component: Callable) -> bool:
    """Whether it is part of this package."""
    return getattr(component, '__module__', '').split('.')[0] == 'ldae'


#: The signature of a component, read once.
signature_of = cache(Signature)


def check_arguments(where: str, component: Callable, options: Mapping, slot: str = '') -> None:
    """Raise ConfigError for an option, as in a config, that ``component`` doesn't take or lacks, and for a value
    that it can't take; ``where`` is its place, for messages, and ``slot`` the key of the config under which it
    stands."""
    if PARTS.search(where):
        return
    signature = signature_of(component)
    name = getattr(component, '__name__', str(component))
    of_the_slot = SLOT_OPTIONS.get(slot, set())
    given = set(options) - BUILDER_OPTIONS - of_the_slot
    known = {*signature.hints, *of_the_slot}
    for option in sorted(given - known):
        hint = nearest(option, known, CLOSE) if signature.is_open else nearest(option, known)
        if hint or not signature.is_open:
            hint = hint or f'; it has {", ".join(sorted(known)) or "none"}'
            raise ConfigError(f'{where}: {name} has no option {option!r}{hint}')
    if slot in COMPLETE and (missing := sorted(signature.required - given)):
        raise ConfigError(f'{where}: {name} needs {", ".join(missing)}')
    for option in sorted(given & known):
        check_value(f'{where}: {name}.{option}', options[option], signature.hints.get(option, Any))
