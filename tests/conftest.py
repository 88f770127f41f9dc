# SPDX-License-Identifier: Apache-2.0
"""Shared fixtures. Threads are set before torch is imported: on few cores, more of them only get in each other's way."""

import copy
import functools
import gc
import os

os.environ.setdefault('OMP_NUM_THREADS', '1')
# Of some corruptions: its compiler crashed once in a process of many tests, and takes longer than small images do without it.
os.environ.setdefault('NUMBA_DISABLE_JIT', '1')

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.config import config as config_module
from mmengine.registry import DefaultScope, init_default_scope
from quick_start import FORMAT_CODE, start_without_delay

from ldae.config import configs_root, load_config
from ldae.models import LDAE
from ldae.registry import MODELS

torch.set_num_threads(1)

CLASSES = ('a', 'b')
PER_CLASS = dict(train=8, val=4)


def write_image(path: Path, rng: np.random.Generator, size: int = 40) -> None:
    """A smooth random JPEG: patches of it have structure that a PCA can find."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC))


def pytest_collection_finish() -> None:
    """What is imported stays: collections of garbage, one for each data set, need not go through it again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """The tests of a file go to one process, so that what they share is built once."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


@pytest.fixture(scope='session', autouse=True)
def _configs_of_the_tree_are_read_once() -> Iterator[None]:
    """Reading a config and all that it inherits takes mmengine tens of milliseconds; each reader gets a copy."""
    root, read = configs_root(), Config._file2dict

    read_once = functools.cache(read)

    def file2dict(
        filename: str,
        use_predefined_variables: bool = True,
        use_environment_variables: bool = True,
        lazy_import: bool | None = None,
    ) -> tuple:
        options = use_predefined_variables, use_environment_variables, lazy_import
        path = Path(filename).absolute()
        if not path.is_relative_to(root):
            return read(filename, *options)
        return copy.deepcopy(read_once(str(path), *options))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Config, '_file2dict', staticmethod(file2dict))
        yield


@pytest.fixture(scope='session', autouse=True)
def _runs_start_without_delay() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        start_without_delay(patch)
        yield


@pytest.fixture
def tidy_configs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A config's text is laid out as it is outside of the tests."""
    monkeypatch.setattr(config_module, 'FormatCode', FORMAT_CODE)


@pytest.fixture(autouse=True)
def _default_scope_of_its_own():
    """A Runner leaves its default scope behind; no test shall depend on whether another has built one."""
    before = DefaultScope._instance_dict.copy()
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


@pytest.fixture
def tiny_image_folder(tmp_path: Path) -> Path:
    """``<tmp>/images/{train,val}/{a,b}/*.jpg``: 16 and 8 images."""
    rng = np.random.default_rng(0)
    root = tmp_path / 'images'
    for split, count in PER_CLASS.items():
        for name in CLASSES:
            for i in range(count):
                write_image(root / split / name / f'{i}.jpg', rng)
    return root


@pytest.fixture
def tiny_annotated_folder(tmp_path: Path) -> Path:
    """ImageNet's other layout: flat ``<tmp>/annotated/{train,val}/*.jpg``, labels in ``meta/{train,val}.txt``."""
    rng = np.random.default_rng(0)
    root = tmp_path / 'annotated'
    (root / 'meta').mkdir(parents=True)
    for split, count in PER_CLASS.items():
        lines = []
        for i in range(2 * count):
            write_image(root / split / f'image {i}.jpg', rng)
            lines.append(f'image {i}.jpg {i % 2}\n')
        (root / 'meta' / f'{split}.txt').write_text(''.join(lines))
    return root


@pytest.fixture(scope='session')
def small_ldae() -> LDAE:
    """The demo's l-DAE with random weights and a fitted PCA, and its config as get_model leaves it."""
    return random_model(load_config('ldae::ldae/demo_fashion-mnist.py'))


def random_model(cfg: Config) -> LDAE:
    """Of a config of the demo's images: random weights, a fitted PCA."""
    torch.manual_seed(0)
    init_default_scope('mmpretrain')
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    model.tokenizer.fit([torch.randn(64, 1, 28, 28)])
    model._config = cfg
    return model.eval()


@pytest.fixture(scope='session')
def small_checkpoint(small_ldae: LDAE, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its checkpoint, as a Runner writes it."""
    path = tmp_path_factory.mktemp('small') / 'epoch_1.pth'
    torch.save(dict(meta=dict(cfg=small_ldae._config.pretty_text), state_dict=small_ldae.state_dict()), path)
    return path


@pytest.fixture
def rgb() -> np.ndarray:
    """uint8 (40, 50, 3): all channels and directions differ."""
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.fixture(scope='session')
def small_model() -> Callable[..., LDAE]:
    """``small_model(head, schedule, **options)``: the demo's l-DAE with a fitted PCA, its config as get_model leaves it."""

    def build(head: str = 'NoiseHead', schedule: str = 'linear_gamma_sq', **options) -> LDAE:
        cfg: Config = load_config('ldae::ldae/demo_fashion-mnist.py')
        cfg.model.head = dict(type=f'ldae.{head}')
        cfg.model.noiser = dict(type='ldae.GaussianNoiser', schedule=schedule)
        cfg.merge_from_dict({f'model.{name}': value for name, value in options.items()})
        return random_model(cfg)

    return build
