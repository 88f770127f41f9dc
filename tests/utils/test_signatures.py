# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from typing import Any, Literal

import pytest
from mmengine.hooks import CheckpointHook, EMAHook
from mmpretrain.models import ImageClassifier
from torch.optim import AdamW

from ldae.datasets import ImageFolder
from ldae.utils import ConfigError
from ldae.utils.signatures import check_options, describe, fits, signature_of


class Base:
    def __init__(self, size: int, depth: int = 1) -> None: ...


class Passes(Base):
    def __init__(self, width: int = 1, **kwargs) -> None:
        super().__init__(max(width, 1), **kwargs)


class Keeps(Base):
    def __init__(self, width: int = 1, **others) -> None:
        super().__init__(size=1)
        self.others = others


class Inherits(Passes):
    pass


def test_options_that_are_passed_on_are_those_of_the_next_class():
    for cls in (Passes, Inherits):
        signature = signature_of(cls)
        assert set(signature.types) == {'width', 'size', 'depth'}
        assert not signature.is_open
        assert not signature.required  # `size` is given by the child


def test_options_that_are_kept_may_be_anything():
    assert signature_of(Keeps).is_open
    check_options('x', Keeps, dict(anything=1), 'model')
    with pytest.raises(ConfigError, match="no option 'widht'; did you mean 'width'"):
        check_options('x', Keeps, dict(widht=1), 'model')


def test_other_packages_classes_are_read_as_well():
    assert {'backbone', 'neck', 'pretrained', 'init_cfg'} <= set(signature_of(ImageClassifier).types)
    assert {'lr', 'betas', 'fused'} <= set(signature_of(AdamW).types)
    assert {'pipeline', 'indices', 'extensions', 'split'} <= set(signature_of(ImageFolder).types)
    assert not signature_of(ImageFolder).is_open
    assert signature_of(CheckpointHook).is_open
    check_options('hook', EMAHook, dict(type='EMAHook', momentum=1e-4, priority='LOW'), 'custom_hooks')


def test_what_is_wrong_is_named_with_its_place():
    def error(slot: str = 'dataset', **options: object) -> str:
        with pytest.raises(ConfigError) as caught:
            check_options('train_dataloader.dataset', ImageFolder, options, slot)
        return str(caught.value)

    assert error(data_rot='x') == (
        "train_dataloader.dataset: ImageFolder has no option 'data_rot'; did you mean 'data_root'?"
    )
    assert error() == 'train_dataloader.dataset: ImageFolder needs data_root'
    assert error(data_root=3) == 'train_dataloader.dataset: data_root=3 is no string, which ImageFolder needs'
    assert "max_bad='few' is no number or None" in error(data_root='x', max_bad='few')
    assert 'it has' in error(data_root='x', zzz=1)


@pytest.mark.parametrize(
    ('value', 'hint', 'expected'),
    [
        (1, int, True),
        (True, int, False),
        (1.0, int, False),
        (1, float, True),
        (True, float, False),
        ('1', float, False),
        (1, bool, False),
        (None, int | None, True),
        ('x', int | None, False),
        ([1, 2], Sequence[int], True),
        ((1, 2), Sequence[int], True),
        ([1, 'x'], Sequence[int], False),
        ('ab', Sequence[str], False),
        ([1], tuple[int, int], False),
        ([1, 2], tuple[int, int], True),
        ([], list, True),
        ({}, dict, True),
        ('x', Literal['x', 'y'], True),
        ('z', Literal['x', 'y'], False),
        (object(), Any, True),
    ],
)
def test_values_of_configs_stand_for_types(value: object, hint: Any, expected: bool):
    assert fits(value, hint) is expected


def test_types_are_said_in_words():
    assert describe(int | None) == 'whole number or None'
    assert describe(Sequence[float]) == 'list of numbers'
    assert describe(Literal['a', 'b']) == "'a' or 'b'"
    assert describe(str | dict) == 'string or dict'
