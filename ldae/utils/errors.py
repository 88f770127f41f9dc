# SPDX-License-Identifier: Apache-2.0
"""Errors for users: one line that says what is wrong, where, and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class ConfigError(ValueError):
    """A wrong option, file or folder. The command line prints it as one line, without a traceback."""


class TrainingStopped(ConfigError):
    """A run that had to stop by itself; the command line prints why as one line and exits with ``exit_status``."""

    exit_status = 3


def short(error: BaseException, length: int = 120) -> str:
    """An error in a few words of one line."""
    return ' '.join(f'{type(error).__name__}: {error}'.split())[:length]


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """``"; did you mean 'x'?"`` for the known name closest to ``name`` and not it, or an empty string; the closer, the higher the
    cutoff, 0 to 1."""
    match = get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"; did you mean '{match[0]}'?" if match and match[0] != name else ''


def check_choice(where: str, value: object, choices: Iterable[str]) -> None:
    """Raise :class:`ConfigError` unless ``value`` is one of ``choices``."""
    choices = sorted(choices)
    if value not in choices:
        raise ConfigError(f'{where}={value!r} is unknown: choose one of {choices}{nearest(str(value), choices)}')


def check_range(where: str, value: object, low: float, high: float = float('inf'), kind: type = float) -> None:
    """Raise :class:`ConfigError` unless ``value`` is a number of ``kind`` in ``[low, high]``."""
    is_number = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        noun = 'an integer' if kind is int else 'a number'
        bound = f'of at least {low}' if high == float('inf') else f'between {low} and {high}'
        raise ConfigError(f'{where}={value!r} is out of range: it must be {noun} {bound}')
