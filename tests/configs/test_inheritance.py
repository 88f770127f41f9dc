# SPDX-License-Identifier: Apache-2.0
"""A config states what differs from its base and nothing else; sizes and lengths of training change what their names say."""

import ast
import copy
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from mmengine.config import Config

from ldae.config import configs_root, load_config

ROOT = configs_root()
ABSENT = object()
MATRIX = ('ldae', 'mae', 'mocov3', 'simclr', 'byol', 'simmim', 'dino', 'benchmarks')
# Parts of a config that a length of training decides.
LENGTH = {'param_scheduler', 'train_cfg'}


def names(*folders: str) -> list[str]:
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob('*.py'))]
    return [path.relative_to(ROOT).as_posix() for path in paths]


@cache
def merged(name: str) -> dict:
    return load_config(ROOT / name).to_dict()


def bases_of(path: Path) -> list[Path]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == '_base_':
            found = ast.literal_eval(node.value)
            return [(path.parent / base).resolve() for base in ([found] if isinstance(found, str) else found)]
    return []


def own_statements(path: Path) -> dict:
    """Assignments of a file, without those of its bases."""
    text = path.read_text()
    if '{{' in text:  # what a base has, placed into a list, which replaces the base's anyhow
        return {}
    namespace: dict = {}
    exec(text, namespace)
    return {key: value for key, value in namespace.items() if not key.startswith('_')}


def repeated(own: dict, base: dict, path: str = '') -> Iterator[str]:
    """Paths at which ``own`` states what ``base`` has already."""
    if own.get('_delete_'):
        return
    for key, value in own.items():
        old = base.get(key, ABSENT)
        if isinstance(value, dict) and isinstance(old, dict):
            yield from repeated(value, old, f'{path}{key}.')
        elif type(value) is type(old) and value == old:
            yield path + key


@pytest.mark.parametrize('name', names('_base_', *MATRIX, 'tokenizers', 'deconstruction', 'after_paper', 'scales'))
def test_a_config_repeats_nothing_of_its_bases(name):
    path = ROOT / name
    base: dict = {}
    for file in bases_of(path):
        base |= _read(file)
    assert list(repeated(own_statements(path), base)) == []


@cache
def _read(file: Path) -> dict:
    return Config.fromfile(file).to_dict()


def differing(first: str, second: str) -> set[str]:
    """Top-level parts in which two configs differ."""
    one, two = merged(first), merged(second)
    return {key for key in {*one, *two} if one.get(key, ABSENT) != two.get(key, ABSENT)}


def pairs(pattern: str) -> list[tuple[str, str]]:
    """Pre-training configs, two and two, whose names differ in what ``pattern`` matches and nowhere else."""
    groups: dict[str, list[str]] = {}
    for name in names('ldae', 'mae'):
        if re.search(pattern, name):
            groups.setdefault(re.sub(pattern, '*', name), []).append(name)
    return [pair for group in groups.values() for pair in pairwise(group)]


@pytest.mark.parametrize(('first', 'second'), pairs('vit-(b|half-l|l)_'))
def test_a_size_changes_the_model_and_the_way_to_its_batch(first, second):
    assert differing(first, second) - {'train_dataloader', 'optim_wrapper'} == {'model'}
    one, other = (copy.deepcopy(merged(name)) for name in (first, second))
    batches = []
    for cfg in (one, other):
        batches.append(cfg['train_dataloader'].pop('batch_size') * cfg['optim_wrapper'].pop('accumulative_counts', 1))
    assert batches[0] == batches[1]
    for name in ('train_dataloader', 'optim_wrapper'):
        assert one[name] == other[name]


@pytest.mark.parametrize(('first', 'second'), pairs(r'_\d+e\.py$'))
def test_a_length_changes_the_schedule_and_nothing_else(first, second):
    assert differing(first, second) == LENGTH


@pytest.mark.parametrize('name', [name for name in names('ldae', 'mae') if re.search(r'_\d+e\.py$', name)])
def test_the_length_of_training_is_that_of_the_name(name):
    assert merged(name)['train_cfg']['max_epochs'] == int(re.search(r'_(\d+)e\.py$', name)[1])
