# SPDX-License-Identifier: Apache-2.0
"""Each string, number and path of a file of data, replaced by a stranger's: nothing runs, no other file is touched, and what
doesn't read is one line."""

import copy
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ldae
from ldae.config import load_config
from ldae.config.stored import parse_config
from ldae.datasets import PackedImages
from ldae.datasets.packed import PACKED
from ldae.datasets.store import new_shard, new_store
from ldae.evaluation.cache import FEATURES, FeatureCache
from ldae.models import PatchPCATokenizer
from ldae.models.tokenizers.base import load_tokenizer_state, save_tokenizer
from ldae.utils import ConfigError

CODE = "__import__('os').system('touch ran')"
VALUES = [
    CODE,
    'subprocess.check_call',
    dict(type='subprocess.check_call', args=['touch', 'ran']),
    '../victim',
    '{folder}/victim',
    'http://127.0.0.1:9/x',
    'stranger',
    'stranger.X',
    'x\0',
    '',
    float('nan'),
    float('-inf'),
    10**30,
    -1,
    3,
    0.5,
    True,
    None,
    [],
    [[CODE]],
    {},
]
TINY = """
_base_ = 'ldae::ldae/vit-b_pca.py'
arch = dict(_delete_=True, embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
model = dict(tokenizer=dict(img_size=8, patch_size=4, latent_dim=4), backbone=dict(arch=arch))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Iterator[Path]:
    """The working directory, with a victim that stays as it is, and a module that must not be imported."""
    work = tmp_path / 'work'
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.syspath_prepend(str(work))
    (work / 'stranger.py').write_text("open('ran', 'w')\n")
    victims = [tmp_path / 'victim', work / 'victim']
    for victim in victims:
        victim.write_text('mine')
    before = set(os.listdir(tmp_path))
    yield work
    assert not (work / 'ran').exists()
    assert 'stranger' not in sys.modules
    assert [victim.read_text() for victim in victims] == ['mine', 'mine']
    assert set(os.listdir(tmp_path)) == before


def leaves(node: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path of each value in a nest of dicts and lists that is neither."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else ()
    for key, child in children:
        yield from leaves(child, (*path, key))
        yield (*path, key)


def mutations(content: Any, folder: Path, turn: int = 0) -> Iterator[tuple[str, Any]]:
    """Copies of a nest with one value replaced; each hostile value comes in turn."""
    for number, path in enumerate(leaves(content), 5 * turn):
        value = VALUES[number % len(VALUES)]
        value = value.format(folder=folder) if value == '{folder}/victim' else value
        changed = copy.deepcopy(content)
        node = changed
        for key in path[:-1]:
            if isinstance(node[key], tuple):
                node[key] = list(node[key])
            node = node[key]
        node[path[-1]] = value
        yield f'{".".join(map(str, path))} = {value!r}', changed


def assert_one_line(what: str, call: Callable[[], Any]) -> None:
    """The call does what it should, or says in one line why it can't."""
    said = ''
    try:
        call()
    except ConfigError as error:
        said = str(error)
    except Exception as error:
        raise AssertionError(f'{what}: {type(error).__name__}: {error}') from error
    assert '\n' not in said, what


@pytest.fixture
def checkpoint(folder) -> dict:
    (folder / 'tiny.py').write_text(TINY)
    cfg = load_config('tiny.py')
    model = ldae.get_model(cfg, device='cpu')
    return dict(meta=dict(cfg=cfg.pretty_text, epoch=1, iter=8), state_dict=model.state_dict())


def test_every_value_of_the_config_in_a_checkpoint(checkpoint, folder):
    values = parse_config(checkpoint['meta']['cfg'])
    parts = (
        'model',
        'data_preprocessor',
        'train_dataloader',
        'default_hooks',
        'visualizer',
        'default_scope',
        'optim_wrapper',
    )
    for what, changed in mutations({key: values[key] for key in parts}, folder):
        text = '\n'.join(f'{key} = {value!r}' for key, value in changed.items())
        torch.save(dict(checkpoint, meta=dict(cfg=text)), 'x.pth')
        assert_one_line(what, lambda: ldae.get_model(checkpoint='x.pth', device='cpu'))


def test_every_part_of_a_checkpoint(checkpoint, folder):
    for turn in range(4):
        for what, changed in mutations(checkpoint, folder, turn):
            torch.save(changed, 'x.pth')
            assert_one_line(what, lambda: ldae.get_model(checkpoint='x.pth', device='cpu'))


def test_every_part_of_a_tokenizer_file(folder):
    save_tokenizer(PatchPCATokenizer(img_size=8, patch_size=4, latent_dim=4), 'tokenizer.pth')
    for turn in range(len(VALUES)):
        for what, changed in mutations(torch.load('tokenizer.pth'), folder, turn):
            torch.save(changed, 'x.pth')
            assert_one_line(what, lambda: PatchPCATokenizer(8, 4, latent_dim=4, checkpoint='x.pth'))
            assert_one_line(what, lambda: load_tokenizer_state('x.pth'))


def write_store(folder: Path, kind: Any, settings: dict, arrays: dict, **entries: Any) -> None:
    with new_store(folder, kind, settings, 1) as (unfinished, more):
        more.update(entries)
        with new_shard(unfinished, 0) as (shard, entry):
            entry['images'] = 2
            for name, array in arrays.items():
                np.save(shard / name, array)


@pytest.fixture(params=['packed', 'features'])
def store(request, folder) -> tuple[Path, Callable[[], Any]]:
    """The manifest of a store, and what reads the store whole."""
    labels = np.zeros(2, np.int64)
    if request.param == 'packed':
        settings = dict(crop='center', format='uint8', edge=8, size=8, with_label=True)
        arrays = {'images.npy': np.zeros((2, 3, 8, 8), np.uint8), 'labels.npy': labels}
        write_store(folder / 'data', PACKED, settings, arrays, classes=['a', 'b'])
        return folder / 'data' / PACKED.manifest, lambda: PackedImages('data')[0]
    settings = dict(num_images=2, blocks=[1], timesteps=[10], noisy=[False], depth=1)
    arrays = {'block_1.npy': np.zeros((1, 2, 4), np.float16), 'labels.npy': labels}
    write_store(folder / 'data', FEATURES, settings, arrays, seconds=1.0)
    return folder / 'data' / FEATURES.manifest, lambda: FeatureCache('data').select()


def test_every_value_of_the_manifest_of_a_store(store, folder):
    manifest, read = store
    read()
    content = json.loads(manifest.read_text())
    for turn in range(len(VALUES)):
        for what, changed in mutations(content, folder, turn):
            manifest.write_text(json.dumps(changed))
            assert_one_line(what, read)


def test_the_values_differ_from_the_shipped_ones():
    assert len({repr(value) for value in VALUES}) == len(VALUES)
    assert list(leaves(dict(a=[1, dict(b=2)]))) == [('a', 0), ('a', 1, 'b'), ('a', 1), ('a',)]
