# SPDX-License-Identifier: Apache-2.0
import pytest
from mmengine.hooks import CheckpointHook, EMAHook
from mmpretrain.models import ArcFaceClsHead, ImageClassifier, LinearClsHead
from torch.optim import AdamW

from ldae.datasets import ImageFolder
from ldae.utils import ConfigError
from ldae.utils.signatures import check_arguments, signature_of


class Base:
    def __init__(self, size: int, depth: int = 1) -> None: ...


class Passes(Base):
    def __init__(self, width: int = 1, **kwargs) -> None:
        super().__init__(max(width, 1), **kwargs)


class Keeps(Base):
    def __init__(self, width: int = 1, **others) -> None:
        super().__init__(size=1)
        self.others = others


class Fixes(Base):
    def __init__(self, **kwargs) -> None:
        size = kwargs.pop('size', 2)
        super().__init__(size=size, depth=3, **kwargs)


class Inherits(Passes):
    pass


def test_options_that_are_passed_on_are_those_of_the_next_class():
    for cls in (Passes, Inherits):
        signature = signature_of(cls)
        assert set(signature.hints) == {'width', 'size', 'depth'}
        assert not signature.is_open
        assert not signature.required  # `size` is given by the child


def test_an_option_that_a_class_sets_for_its_parent_is_none_of_its_own():
    signature = signature_of(Fixes)
    assert set(signature.hints) == {'size'}
    with pytest.raises(TypeError, match='multiple values'):
        Fixes(depth=1)
    Fixes(size=1)
    assert 'data_prefix' in signature_of(ImageFolder).hints
    assert 'topk' not in signature_of(ArcFaceClsHead).hints
    assert 'topk' in signature_of(LinearClsHead).hints


def test_options_that_are_kept_may_be_anything():
    assert signature_of(Keeps).is_open
    check_arguments('x', Keeps, dict(anything=1), 'model')
    with pytest.raises(ConfigError, match="no option 'widht'; did you mean 'width'"):
        check_arguments('x', Keeps, dict(widht=1), 'model')


def test_other_packages_classes_are_read_as_well():
    assert {'backbone', 'neck', 'pretrained', 'init_cfg'} <= set(signature_of(ImageClassifier).hints)
    assert {'lr', 'betas', 'fused'} <= set(signature_of(AdamW).hints)
    assert {'pipeline', 'indices', 'extensions', 'split'} <= set(signature_of(ImageFolder).hints)
    assert not signature_of(ImageFolder).is_open
    assert signature_of(CheckpointHook).is_open
    check_arguments('hook', EMAHook, dict(type='EMAHook', momentum=1e-4, priority='LOW'), 'custom_hooks')


def test_what_is_wrong_is_named_with_its_place():
    def error(slot: str = 'dataset', **options: object) -> str:
        with pytest.raises(ConfigError) as caught:
            check_arguments('train_dataloader.dataset', ImageFolder, options, slot)
        return str(caught.value)

    assert error(data_rot='x') == (
        "train_dataloader.dataset: ImageFolder has no option 'data_rot'; did you mean 'data_root'?"
    )
    assert error() == 'train_dataloader.dataset: ImageFolder needs data_root'
    assert error(data_root=3) == 'train_dataloader.dataset: ImageFolder.data_root must be a string, got 3'
    assert "max_bad must be a number or None, got 'few'" in error(data_root='x', max_bad='few')
    assert 'it has' in error(data_root='x', zzz=1)
