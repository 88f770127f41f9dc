# SPDX-License-Identifier: Apache-2.0
"""Runs that are killed, signalled or lose a process: resumed they equal one that wasn't, and none of them hangs."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]

# Random crops in two workers, accumulated gradients, an average of the weights, validation: all that has a state.
CONFIG = """
_base_ = 'ldae::ldae/vit-b_pca.py'
arch = dict(_delete_=True, embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
model = dict(tokenizer=dict(img_size=16, patch_size=4, latent_dim=4), backbone=dict(arch=arch))
pipeline = [dict(type='ldae.LoadImage'), dict(type='RandomResizedCrop', scale=16), dict(type='PackInputs')]
steady = [dict(type='ldae.LoadImage'), dict(type='Resize', scale=(16, 16)), dict(type='PackInputs')]
train_dataloader = dict(batch_size=2, num_workers=2, dataset=dict(data_root='images', pipeline=pipeline))
val_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(data_root='images', pipeline=steady))
test_dataloader = val_dataloader
optim_wrapper = dict(accumulative_counts=3)
train_cfg = dict(max_epochs=5)
default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=1, step_interval=2),
    logger=dict(interval=1),
    health=dict(interval=1000),
    ema=dict(type='ldae.SkipAwareEMAHook', momentum=0.1),
)
custom_imports = dict(imports=['faults'])
custom_hooks = [dict(type='FaultHook')]
"""

# What happens to the run, by the environment: "<what> <rank> <step>".
FAULTS = """
import multiprocessing, os, signal
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class FaultHook(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        what, rank, step = os.environ.get('FAULT', 'none 0 0').split()
        if dist.get_rank() != int(rank) or runner.iter + 1 != int(step):
            return
        if os.environ.get('TORCHELASTIC_RESTART_COUNT', '0') != '0':
            return
        target = multiprocessing.active_children()[0].pid if what == 'worker' else os.getpid()
        os.kill(target, signal.SIGUSR1 if what == 'signal' else signal.SIGKILL)
"""

# One start of Python for many runs, each of which is a fork; a run that is killed has had a random time.
KILLS = """
import os, random, signal, sys, time
from ldae.cli import train
import ldae.launch, ldae.models, ldae.datasets, ldae.engine, ldae.evaluation, mmpretrain.models, mmpretrain.datasets

def start(work_dir, seconds=None):
    pid = os.fork()
    if pid == 0:
        os.setpgrp()
        train.main(['tiny.py', '--work-dir', work_dir, '--resume'])
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return os.waitpid(pid, 0)[1]

random.seed(int(sys.argv[1]))
assert start('whole') == 0
begin = time.monotonic()
assert start('timed') == 0
usual = time.monotonic() - begin
killed = sum(start('killed', random.uniform(0.1, 0.9) * usual) != 0 for _ in range(20))
assert start('killed') == 0
print('killed', killed)
"""


@pytest.fixture
def workspace(tmp_path: Path, tiny_image_folder: Path) -> Path:
    for name, text in (('tiny.py', CONFIG), ('faults.py', FAULTS), ('kills.py', KILLS)):
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def run(workspace: Path) -> Callable[..., str]:
    """Start a program; it must end with ``status``, in time, and what it printed is returned."""

    def run(*command: object, status: int = 0, **env: object) -> str:
        with socket.socket() as server:
            server.bind(('127.0.0.1', 0))
            port = server.getsockname()[1]
        env = dict(
            env, PYTHONPATH=f'{ROOT}:{workspace}', PYTHON=sys.executable, OMP_NUM_THREADS='1', PORT=port
        )
        result = subprocess.run(
            list(map(str, command)),
            cwd=workspace,
            env=os.environ | {key: str(value) for key, value in env.items()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        assert result.returncode == status, result.stdout[-6000:]
        return result.stdout

    return run


def outcome(work_dir: Path) -> dict:
    """All that a run ends with, but for times."""
    saved = torch.load(work_dir / (work_dir / 'last_checkpoint').read_text(), weights_only=True)
    scalars = saved['message_hub']['log_scalars']
    parts = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers', 'progress')
    return dict(
        {part: saved[part] for part in parts},
        meta={key: saved['meta'][key] for key in ('epoch', 'iter', 'seed')},
        log={
            key: value['log'] for key, value in scalars.items() if 'time' not in key and key != 'train/memory'
        },
    )


def assert_same(a: object, b: object, where: str = '') -> None:
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f'{where}.{key}')
    elif isinstance(a, list | tuple):
        for n, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f'{where}[{n}]')
    else:
        assert a == b, where


def test_a_run_killed_at_20_random_moments_equals_one_that_was_not(run, workspace):
    printed = run(sys.executable, 'kills.py', 3)
    assert 'killed' in printed
    assert_same(outcome(workspace / 'killed'), outcome(workspace / 'whole'))


def test_a_dead_worker_of_the_data_loader_ends_the_run_with_one_line(run):
    printed = run(sys.executable, ROOT / 'tools/train.py', 'tiny.py', status=2, FAULT='worker 0 3')
    (line,) = [line for line in printed.splitlines() if line.startswith('error: ')]
    assert 'a worker process of the data loader was killed (Killed)' in line
    assert 'Traceback' not in printed
