# SPDX-License-Identifier: Apache-2.0
import copy
import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import pytest

from ldae.utils import Choice, ConfigError, NaturalInt, PositiveInt, Range, Seed, Share, checked
from ldae.utils.ranges import check_value, fits, in_words

MODES = {'fast': 1}


class Base:
    @checked
    def __init__(self, size: PositiveInt, *rest: int, share: Share | None = None, **others: int) -> None:
        self.size, self.rest, self.share, self.others = size, rest, share, others


class Child(Base):
    @checked
    def __init__(
        self,
        mode: Annotated[str, Choice('mean', 'max')] = 'mean',
        arch: Annotated[str, Choice(MODES)] | dict = 'fast',
        steps: Sequence[NaturalInt] = (),
        betas: tuple[Share, Share] = (0.9, 0.99),
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.mode = mode


@checked
def area(width: PositiveInt, unit: Literal['cm', 'm'] = 'cm') -> str:
    """Width squared."""
    return f'{width**2} {unit}'


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(size=0), 'Child.size=0 is out of range: it must be an integer of at least 1'),
        (dict(size=1.5), 'Child.size must be an integer, got 1.5'),
        (dict(size=True), 'Child.size must be an integer, got True'),
        (dict(size='3'), "Child.size must be an integer, got '3'"),
        (dict(share=2), 'Child.share=2 is out of range: it must be a number between 0 and 1'),
        (dict(share=float('nan')), 'Child.share=nan is out of range'),
        (dict(share='much'), "Child.share must be a number or None, got 'much'"),
        (dict(mode='man'), "Child.mode='man' is unknown: choose one of ['max', 'mean']; did you mean 'mean'?"),
        (dict(mode=3), 'Child.mode must be a string, got 3'),
        (dict(arch='fats'), "Child.arch='fats' is unknown: choose one of ['fast']; did you mean 'fast'?"),
        (dict(arch=[]), 'Child.arch must be a string or a dict, got []'),
        (dict(steps=[1, -1]), 'Child.steps[1]=-1 is out of range: it must be an integer of at least 0'),
        (dict(steps=7), 'Child.steps must be a list of integers, got 7'),
        (dict(betas=(0.9, 2)), 'Child.betas[1]=2 is out of range'),
        (dict(betas=(0.9,)), 'Child.betas must be a list of numbers, got (0.9,)'),
    ],
)
def test_a_wrong_type_range_or_choice_is_one_line(options: dict, message: str):
    with pytest.raises(ConfigError) as caught:
        Child(**{'size': 1, **options})
    line = str(caught.value)
    assert line.startswith(message)
    assert '\n' not in line


def test_right_values_pass_and_a_wrong_call_is_pythons_own_error():
    built = Child(mode='max', arch={'depth': 1}, steps=(0, 5), size=2, share=1, extra=-1)
    assert (built.mode, built.size, built.share, built.others) == ('max', 2, 1, {'extra': -1})
    assert Base(1, -5, -6).rest == (-5, -6)  # of what takes many, none is looked at
    with pytest.raises(TypeError, match=r"__init__\(\) missing 1 required positional argument: 'size'"):
        Base()


def test_functions_and_dataclasses_are_checked_too():
    @checked
    @dataclass(frozen=True)
    class Settings:
        k: PositiveInt = 20

    assert area(3) == '9 cm'
    with pytest.raises(ConfigError, match=r'^area\.width=0 is out of range'):
        area(width=0)
    with pytest.raises(ConfigError, match=r"^area\.unit must be 'cm' or 'm', got 'inch'"):
        area(1, 'inch')
    assert Settings().k == 20
    with pytest.raises(ConfigError, match=r'^Settings\.k=0 is out of range'):
        Settings(k=0)


def test_what_reads_signatures_sees_no_wrapper():
    assert list(inspect.signature(Child).parameters) == ['mode', 'arch', 'steps', 'betas', 'kwargs']
    assert area.__doc__ == 'Width squared.'
    assert get_type_hints(area)['width'] is int
    assert 'Width squared' in inspect.getsource(area)
    child = Child(size=1)
    assert vars(pickle.loads(pickle.dumps(child))) == vars(copy.deepcopy(child)) == vars(child)


def test_a_choice_of_a_registry_sees_what_is_registered_later():
    known = {'a': 1}
    hint = Annotated[str, Choice(known)]
    with pytest.raises(ConfigError, match='unknown'):
        check_value('x', 'b', hint)
    known['b'] = 2
    check_value('x', 'b', hint)


def test_bounds_are_allowed_themselves():
    check_value('x', 0, Share)
    check_value('x', 1, Share)
    check_value('x', 2**31 - 1, Seed)
    check_value('x', 7, Annotated[int, Range(7, 7)])
    with pytest.raises(ConfigError, match='between 0 and 2147483647'):
        check_value('x', 2**31, Seed)


def test_long_values_are_cut_to_one_line():
    with pytest.raises(ConfigError) as caught:
        check_value('x', 'line\n' * 1000, int)
    assert '\n' not in str(caught.value)
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize(
    ('value', 'hint', 'expected'),
    [
        (1, int, True),
        (True, int, False),
        (1.0, int, False),
        (1, float, True),
        (True, float, False),
        ('1', float, False),
        (Path('x'), str, True),
        (Path('x'), int, False),
        (1, bool, False),
        (None, int | None, True),
        ('x', int | None, False),
        ([1, 2], Sequence[int], True),
        ((1, 2), Sequence[int], True),
        (range(2), Sequence[int], True),
        ([1, 'x'], Sequence[int], False),
        ('ab', Sequence[str], False),
        ([1], tuple[int, int], False),
        ([1, 2], tuple[int, int], True),
        ([], list, True),
        (3, list, False),
        ({}, dict, True),
        ({}, dict[str, int], True),
        ([], dict[str, int], False),
        ('name', Base, True),
        ({}, Base | None, True),
        (3, Base | None, False),
        ('x', type(None), False),
        (print, Callable, True),
        (3, Callable, False),
        ('x', Literal['x', 'y'], True),
        ('z', Literal['x', 'y'], False),
        (object(), Any, True),
        (1, PositiveInt, True),
        ('x', PositiveInt, False),
    ],
)
def test_values_of_configs_stand_for_types(value: object, hint: Any, expected: bool):
    assert fits(value, hint) is expected


def test_types_are_said_in_words():
    assert in_words(int | None) == 'an integer or None'
    assert in_words(Sequence[float]) == 'a list of numbers'
    assert in_words(Literal['a', 'b']) == "'a' or 'b'"
    assert in_words(str | dict) == 'a string or a dict'
    assert in_words(Sequence[Share] | None) == 'a list of numbers or None'


def test_no_torch_is_needed():
    code = 'import sys, ldae.utils; sys.exit("torch" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
