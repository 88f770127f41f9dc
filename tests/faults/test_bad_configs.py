# SPDX-License-Identifier: Apache-2.0
"""Some hundred wrong configs, made from those of the tree: each ends in one line before any data are read."""

import copy
import gc
import sys
import time
import types
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from mmengine.config import Config

sys.path.append(str(Path(__file__).parents[1] / 'configs'))
from shrink import shrink, write_images

from ldae.checks import _components
from ldae.config import configs_root, load_config
from ldae.launch import build_runner, prepare
from ldae.sections import SECTIONS, lookup
from ldae.signatures import signature_of
from ldae.utils import ConfigError

BASES = {
    'ldae': 'ldae/vit-b_pca.py',
    'mae': 'mae/vit-b_400e.py',
    'finetune': 'benchmarks/ldae_vit-b_finetune.py',
    'linear': 'benchmarks/ldae_vit-b_linear.py',
    'gan': 'tokenizers/conv-vae_f8_kl-gan.py',
    'demo': 'ldae/demo_fashion-mnist.py',
}
SECONDS = 10


class DataWereReadError(BaseException):
    """Past every handler of the code under test."""


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp('images'))


@cache
def small(base: str, images: Path) -> Config:
    cfg = shrink(configs_root() / BASES[base], images, images.parent / 'work')
    if base in ('linear', 'finetune'):
        checkpoint = images.parent / 'checkpoint.pth'
        checkpoint.touch()  # it is looked at only when training starts
        cfg.model.backbone.init_cfg.checkpoint = str(checkpoint)
    return cfg


@pytest.fixture
def _no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*args: object) -> None:
        raise DataWereReadError

    monkeypatch.setattr('ldae.datasets.image_folder.ImageFolder.load_data_list', read)
    monkeypatch.setattr('ldae.datasets.idx.read_idx', read)
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.setattr(gc, 'collect', lambda *args: 0)  # which the Runner calls, and takes most of the time


def run(cfg: Config) -> str:
    """The one line that a config ends in."""
    began = time.process_time()
    with pytest.raises(ConfigError) as caught:
        build_runner(prepare(cfg))
    line = str(caught.value)
    assert '\n' not in line
    assert time.process_time() - began < SECONDS
    return line


# -- spelling ---------------------------------------------------------------------------------------------------------


def misspelt(key: str) -> str:
    """Two neighbours in the middle swapped, or a letter doubled where they are equal."""
    i = len(key) // 2
    swapped = key[: i - 1] + key[i] + key[i - 1] + key[i + 1 :]
    return swapped if swapped != key else key[:i] + key[i] + key[i:]


def places_of_keys() -> list:
    """(base, dotted place of a dict, key) of every key of every component and section, once for each kind."""
    found, seen = [], set()
    for base, name in BASES.items():
        cfg = load_config(configs_root() / name)
        nodes = [(where, type_, node) for where, type_, node, _ in _components(cfg)]
        nodes += [(where, where, lookup(cfg, where) or {}) for where in SECTIONS]
        for where, kind, node in nodes:
            for key in node:
                if len(key) > 2 and (kind, key) not in seen and not key.startswith('_'):
                    seen.add((kind, key))
                    found.append(pytest.param(base, where, key, id=f'{base}:{where}.{key}'))
    return found


def reach(cfg: Any, where: str) -> Any:
    for part in where.replace('[', '.').replace(']', '').split('.'):
        cfg = cfg[int(part) if part.isdigit() else part]
    return cfg


@pytest.mark.parametrize(('base', 'where', 'key'), places_of_keys())
@pytest.mark.usefixtures('_no_data')
def test_a_misspelt_key_names_the_right_one(base: str, where: str, key: str, images: Path):
    cfg = copy.deepcopy(small(base, images))
    node = reach(cfg, where)
    if key not in node:
        pytest.skip('not in the small config')
    node[misspelt(key)] = node.pop(key)
    line = run(cfg)
    assert misspelt(key) in line or key == 'type'
    assert key in line


# -- types ------------------------------------------------------------------------------------------------------------

WRONG = {int: ['three', 1.5, [1]], float: ['much', [0.5]], bool: ['maybe', 3], str: [3], dict: [5, 'x']}


def wrong_values(hint: Any) -> list:
    """Values that are none of a type."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        accepted = [kind for kind in inner if kind is not type(None)]
        return [
            object_
            for object_ in [{'a': 1}, 'x', [None], 1.5]
            if not any(plausible(object_, k) for k in accepted)
        ]
    if origin in (Sequence, list, tuple):
        return [7, ['x', {}]] if inner else [7]
    return WRONG.get(hint, []) if origin is not Literal else ['none of them']


def plausible(value: object, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (Sequence, list, tuple):
        return isinstance(value, list)
    return (
        not isinstance(hint, type)
        or hint not in WRONG
        or isinstance(value, dict | float if hint is float else hint)
    )


def typed_options() -> list:
    """(base, place, option, wrong value) of each option of each component of ldae's that a config of the tree uses."""
    found, seen = [], set()
    for base, name in BASES.items():
        for where, component, _, slot in _components(load_config(configs_root() / name)):
            signature = signature_of(component)
            for option, hint in signature.types.items():
                if (component, option) in seen or slot == 'data_preprocessor':
                    continue
                seen.add((component, option))
                for value in wrong_values(hint):
                    found.append(pytest.param(base, where, option, value, id=f'{where}.{option}={value!r}'))
    return found


@pytest.mark.parametrize(('base', 'where', 'option', 'value'), typed_options())
@pytest.mark.usefixtures('_no_data')
def test_a_value_of_another_type_is_named(base: str, where: str, option: str, value: object, images: Path):
    cfg = copy.deepcopy(small(base, images))
    reach(cfg, where)[option] = value
    line = run(cfg)
    assert option in line
    assert 'LDAE_TRACEBACK' not in line
