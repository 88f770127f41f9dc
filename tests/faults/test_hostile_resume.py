# SPDX-License-Identifier: Apache-2.0
"""Each kind of value of a checkpoint that a run resumes from, replaced by a stranger's: the run says in one line that it can't
go on from it, or trains to finite weights."""

import copy
import logging
import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from test_hostile_data import CODE, leaves

import ldae
from ldae.config import load_config
from ldae.engine.resume.safe_checkpoint import latest_checkpoint
from ldae.launch import LaunchOptions, build_runner, prepare
from ldae.utils import ConfigError

CONFIG = """
_base_ = 'ldae::ldae/vit-b_pca.py'
arch = dict(_delete_=True, embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
model = dict(tokenizer=dict(img_size=16, patch_size=4, latent_dim=4), backbone=dict(arch=arch))
pipeline = [dict(type='ldae.LoadImage'), dict(type='Resize', scale=(16, 16)), dict(type='PackInputs')]
train_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(pipeline=pipeline))
val_dataloader = val_evaluator = val_cfg = None
train_cfg = dict(max_epochs=2)
auto_scale_lr = dict(base_batch_size=4)
log_level = 'ERROR'
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(step_interval=3),
    ema=dict(type='ldae.SkipAwareEMAHook', momentum=0.1, in_place=False),
)
"""
NAN = float('nan')
NUMBERS = (-1, 0, 3, 0.5, 10**30, NAN, float('inf'), True)
VALUES = (CODE, '../victim', None, [], {}, [['x']], *NUMBERS, *map(torch.tensor, ([0.0, 0.0], NAN, [], True)))
A_KIND = 3  # values of each kind of leaf; all kinds together meet all values
SECONDS = 20


@HOOKS.register_module()
class KeepCheckpointHook(Hook):
    """Keep the checkpoint of the third step, which the next one replaces."""

    priority = 'LOWEST'

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == 3:
            shutil.copy('work/iter_3.pth', 'kept.pth')


@pytest.fixture
def resumed(tmp_path, tiny_image_folder, monkeypatch) -> tuple[Any, dict]:
    """A runner that is to resume ``work/iter_3.pth``, and what is in that."""
    monkeypatch.chdir(tmp_path)
    Path('mine.py').write_text(CONFIG)
    options = dict(data_root=str(tiny_image_folder), work_dir='work', device='cpu')
    ldae.train('mine.py', dict(custom_hooks=[dict(type='KeepCheckpointHook')]), **options)
    shutil.rmtree('work')
    Path('work').mkdir()
    shutil.copy('kept.pth', 'work/iter_3.pth')
    runner = build_runner(prepare(load_config('mine.py'), LaunchOptions(**options, resume='auto')))
    logging.getLogger().setLevel(logging.CRITICAL)
    return runner, torch.load('kept.pth')


def kinds(content: dict) -> Iterator[tuple]:
    """The path of one leaf of each kind: parameters, groups of them and logged scalars are treated alike."""
    known = set()
    for path in leaves(content):
        kind = tuple(
            '#' if isinstance(key, int) or before in ('log_scalars', 'state_dict', 'ema_state_dict') else key
            for before, key in zip((None, *path), path, strict=False)
        )
        if kind not in known:
            known.add(kind)
            yield path


def replaced(content: Any, path: tuple, value: Any) -> Any:
    """A copy with one value replaced; what lies beside the path is shared."""
    if not path:
        return value
    node = list(content) if isinstance(content, tuple) else copy.copy(content)
    node[path[0]] = replaced(node[path[0]], path[1:], value)
    return node


def outcome(runner: Any, content: dict) -> str:
    """How a fork of this process fares that resumes from such a checkpoint: its last words, '' if it trains well."""
    torch.save(content, 'work/iter_3.pth')
    reader, writer = os.pipe()
    if child := os.fork():
        os.close(writer)
        with os.fdopen(reader, 'rb') as pipe:
            said = pipe.read().decode()
        status = os.waitpid(child, 0)[1]
        return f'killed by signal {status}' if status else said
    said = ''
    try:
        signal.alarm(SECONDS)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        latest_checkpoint('work')
        runner.train()
        if not all(value.isfinite().all() for value in runner.model.state_dict().values()):
            said = 'weights that are not finite'
    except ConfigError as error:
        said = 'two lines' if '\n' in str(error) else ''
    except BaseException as error:
        said = f'{type(error).__name__}: {error}'
    finally:
        os.write(writer, said.encode())
        os._exit(0)


def test_a_hostile_value_of_each_kind(resumed):
    runner, content = resumed
    rng, wrong = random.Random(0), []
    values = []
    for path in kinds(content):
        for _ in range(A_KIND):
            values = values or rng.sample(VALUES, len(VALUES))
            value = values.pop()
            if said := outcome(runner, replaced(content, path, value)):
                wrong.append(f'{".".join(map(str, path))} = {value!r}: {said}')
    assert not wrong, '\n'.join(wrong)
    assert outcome(runner, content) == ''
