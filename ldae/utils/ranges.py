# SPDX-License-Identifier: Apache-2.0
"""Types, ranges and choices of options: stated in a signature's annotations, checked by one decorator.

    @checked
    def __init__(self, interval: PositiveInt = 10, pool: Annotated[str, Choice('mean', 'max')] = 'mean') -> None: ...

raises a :class:`ConfigError` for ``interval=0``; what checks a config reads the same annotations without building anything.
"""

import inspect
import os
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache, wraps
from types import SimpleNamespace
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import ConfigError, check_choice, check_range

Target = TypeVar('Target', bound=Callable)


class Range(NamedTuple):
    """``Annotated[int, Range(1, 100)]``: a number from ``low`` to ``high``, both allowed."""

    low: float
    high: float = float('inf')

    def check(self, place: str, value: object, kind: type) -> None:
        check_range(place, value, self.low, self.high, kind)


class Choice:
    """``Annotated[str, Choice('a', 'b')]``, or ``Choice(container)``, of which the items count when a value is checked."""

    def __init__(self, *values: object) -> None:
        is_container = len(values) == 1 and not isinstance(values[0], str)
        self.values: Iterable = values[0] if is_container else values

    def check(self, place: str, value: object, kind: type) -> None:
        check_choice(place, value, self.values)


PositiveInt = Annotated[int, Range(1)]
NaturalInt = Annotated[int, Range(0)]
Share = Annotated[float, Range(0, 1)]
Seed = Annotated[int, Range(0, 2**31 - 1)]
#: ``'auto'`` is bf16 where the device has instructions for it, else fp32.
PRECISIONS = ('auto', 'fp32', 'bf16', 'fp16')
Precision = Annotated[str, Choice(*PRECISIONS)]
#: Where the runs of a study are processes: of this one, on this machine by submitit, of Slurm.
EXECUTORS = ('local', 'submitit-local', 'slurm')
Executor = Annotated[str, Choice(*EXECUTORS)]
#: What a GPU is assumed to do, in 1e12 operations a second, of about 300 that an A100 is built for and 1000 of an H100.
TFLOPS = 100.0
LOG_LEVELS = ('DEBUG', 'INFO', 'WARNING', 'ERROR')
LogLevel = Annotated[str, Choice(*LOG_LEVELS)]


def checked(target: Target) -> Target:
    """Check the arguments of each call of a constructor or function by its annotations; of a dataclass, its fields.

    The place in the message is the class that is built (a child's name, where its parent's constructor is checked) or the
    function, and the option: ``HealthHook.window=0 is out of range: it must be an integer of at least 1``."""
    if inspect.isclass(target):
        target.__init__ = checked(target.__init__)
        return target
    signature = inspect.signature(target)
    is_method = next(iter(signature.parameters), None) == 'self'

    @wraps(target)
    def call(*args, **kwargs):
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return target(*args, **kwargs)  # Python's own message is the better one
        owner = type(args[0]) if is_method and args else target
        hints = hints_of(target)
        for option, value in given.items():
            if option in hints:
                check_value(f'{owner.__name__}.{option}', value, hints[option])
        return target(*args, **kwargs)

    return call


@cache
def hints_of(function: Callable) -> dict[str, Any]:
    """The annotations of a function's options, what stands in ``Annotated`` included, but for those of ``*args`` and
    ``**kwargs`` and those that can't be resolved."""
    hints: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.annotation is parameter.empty or parameter.kind in _MANY:
            continue
        holder = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
        names = getattr(inspect.unwrap(function), '__globals__', {})
        try:
            hints.update(get_type_hints(holder, names, include_extras=True))
        except (NameError, TypeError):
            continue
    return hints


_MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def check_value(place: str, value: object, hint: Any) -> None:
    """Raise ConfigError unless ``value`` has the type, the range and the choices of an annotation."""
    if not fits(value, hint):
        raise ConfigError(f'{place} must be {in_words(hint)}, got {_shown(value)}')
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        check_value(place, value, inner[0])
        for mark in hint.__metadata__:
            mark.check(place, value, inner[0])
    elif origin in UNIONS:
        first, *others = (part for part in inner if fits(value, part))
        for part in others:
            with suppress(ConfigError):
                return check_value(place, value, part)
        check_value(place, value, first)  # whose error is the one to tell
    elif origin in SEQUENCES:
        parts = _of_items(value, inner, origin)
        for i, (item, part) in enumerate(zip(value, parts, strict=True)):
            check_value(f'{place}[{i}]', item, part)


def fits(value: object, hint: Any) -> bool:
    """Whether a value can stand for a type: lists for sequences, paths for strings, dicts for what they are built into."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return fits(value, inner[0])
    if origin in UNIONS:
        return any(fits(value, part) for part in inner)
    if origin is Literal:
        return value in inner
    kind = origin or hint
    if kind in SIMPLE:
        return isinstance(value, SIMPLE[kind]) and (kind is bool or not isinstance(value, bool))
    if kind is type(None):
        return value is None
    if kind in SEQUENCES:
        is_list = isinstance(value, list | tuple | range)
        parts = _of_items(value, inner, origin) if is_list else ()
        return is_list and len(value) == len(parts) and all(map(fits, value, parts))
    if kind is not Any and isinstance(kind, type):
        # Of classes, a config has names, or dicts to build them from.
        return not isinstance(value, PLAIN) or isinstance(value, kind)
    return True


PLAIN = (bool, int, float, list, tuple, type(None))
UNIONS = (Union, types.UnionType)
SEQUENCES = (Sequence, list, tuple)
SIMPLE = {int: int, float: (int, float), bool: bool, str: (str, os.PathLike), dict: Mapping}


def _of_items(value: Sequence, inner: tuple, origin: type) -> tuple:
    """The annotation of each item of a list."""
    if not inner:
        return (Any,) * len(value)
    return inner if origin is tuple and ... not in inner else inner[:1] * len(value)


NOUNS = {
    int: ('an integer', 'integers'),
    float: ('a number', 'numbers'),
    bool: ('True or False', 'booleans'),
    str: ('a string', 'strings'),
    dict: ('a dict', 'dicts'),
    type(None): ('None', 'Nones'),
}


def in_words(hint: Any, many: bool = False) -> str:
    """A type in words: 'an integer or None'."""
    origin, inner = get_origin(hint), get_args(hint)
    kind = origin or hint
    if origin is Annotated:
        return in_words(inner[0], many)
    if origin in UNIONS:
        return ' or '.join(in_words(part, many) for part in inner)
    if origin is Literal:
        return ' or '.join(map(repr, inner))
    if kind in SEQUENCES:
        noun = 'lists' if many else 'a list'
        return f'{noun} of {in_words(inner[0], many=True)}' if inner else noun
    name = getattr(kind, '__name__', str(kind))
    return NOUNS.get(kind, (f'a {name}', f'{name}s'))[many]


def _shown(value: object) -> str:
    """One line of a value, however long it is."""
    text = ' '.join(repr(value).split())
    return text if len(text) <= 100 else f'{text[:97]}...'
