# SPDX-License-Identifier: Apache-2.0
"""Runs that cost their training and not their imports, and what they leave behind."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]

# Random crops, accumulated gradients, an average of the weights, validation: all that has a state.
CONFIG = """
_base_ = 'ldae::ldae/vit-b_pca.py'
arch = dict(_delete_=True, embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
model = dict(tokenizer=dict(img_size=16, patch_size=4, latent_dim=4), backbone=dict(arch=arch))
pipeline = [dict(type='ldae.LoadImage'), dict(type='RandomResizedCrop', scale=16), dict(type='PackInputs')]
steady = [dict(type='ldae.LoadImage'), dict(type='Resize', scale=(16, 16)), dict(type='PackInputs')]
train_dataloader = dict(batch_size=2, num_workers=0, dataset=dict(data_root='images', pipeline=pipeline))
val_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(data_root='images', pipeline=steady))
test_dataloader = val_dataloader
optim_wrapper = dict(accumulative_counts=3)
train_cfg = dict(max_epochs=4)
default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=1, step_interval=2),
    logger=dict(interval=1),
    health=dict(interval=1000),
    ema=dict(type='ldae.SkipAwareEMAHook', momentum=0.1),
)
custom_imports = dict(imports=['faults'])
custom_hooks = [dict(type='FaultHook')]
"""

# What happens to the run, by the environment: "<what> <rank> <step>", in a job's first start only.
FAULTS = """
import multiprocessing, os, signal, time
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module(force=True)
class FaultHook(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        what, rank, step = os.environ.get('FAULT', 'none 0 0').split()
        if dist.get_rank() != int(rank) or runner.iter + 1 != int(step):
            return
        if os.environ.get('TORCHELASTIC_RESTART_COUNT', '0') != '0':
            return
        if what == 'error':
            raise ZeroDivisionError('made up')
        if what == 'worker':
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        elif what.startswith('launcher'):
            os.kill(os.getppid(), signal.SIGKILL if what == 'launcher_killed' else signal.SIGTERM)
            (stop,) = [hook for hook in runner.hooks if hasattr(hook, 'caught')]
            while stop.caught is None:  # the launcher passes it on, or the kernel says that it has ended
                time.sleep(0.01)
        elif what == 'fill':  # the disk, but for room for logs
            disk = os.statvfs(runner.work_dir)
            with open(f'{runner.work_dir}/filler', 'wb') as file:
                file.write(bytes(disk.f_bavail * disk.f_bsize - 150_000))
        else:
            os.kill(os.getpid(), getattr(signal, what))
"""


class Runs:
    """Starts runs of tools/train.py, as forks of a process that has imported everything."""

    def __init__(self, server: subprocess.Popen, folder: Path) -> None:
        self.server, self.folder = server, folder

    def ask(self, **request: object) -> int:
        self.server.stdin.write(json.dumps(request) + '\n')
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def start(
        self, *argv: object, tool: str = 'train', env: dict | None = None, log: str = 'log', **options: object
    ) -> int:
        """The process id of a run of tiny.py, or of another tool, with further arguments."""
        argv = [tool, *(['tiny.py'] if tool == 'train' else []), *map(str, argv)]
        env = {key: str(value) for key, value in (env or {}).items()}
        return self.ask(argv=argv, folder=str(self.folder), log=str(self.folder / log), env=env, **options)

    def wait(self, pid: int) -> int:
        """Its exit status, negative if a signal has ended it."""
        return self.ask(wait=pid)

    def run(self, *argv: object, **options: object) -> int:
        return self.wait(self.start(*argv, **options))

    def start_two(self, *argv: object, env: dict | None = None, deaths: tuple = (None, None)) -> list[int]:
        """Two processes of one job on gloo, without a launcher, which would end one with the other."""
        env = dict(env or {}, WORLD_SIZE=2, MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port())
        return [
            self.start(
                *('--launcher', 'pytorch', *argv),
                env=dict(env, RANK=rank, LOCAL_RANK=rank),
                log=f'log{rank}',
                death=deaths[rank],
            )
            for rank in range(2)
        ]

    def run_two(self, *argv: object, **options: object) -> list[int]:
        return list(map(self.wait, self.start_two(*argv, **options)))

    def launch(self, *argv: object, env: dict | None = None) -> int:
        """tools/dist_train.sh with two processes."""
        env = dict(env or {}, PYTHONPATH=self.folder, PYTHON=sys.executable, PORT=free_port())
        command = [ROOT / 'tools/dist_train.sh', 'tiny.py', 2, *argv]
        run = subprocess.run(
            list(map(str, command)),
            cwd=self.folder,
            env=dict(os.environ, OMP_NUM_THREADS='1', **{key: str(value) for key, value in env.items()}),
            stdout=subprocess.PIPE,  # which its processes hold open
            stderr=subprocess.STDOUT,
            timeout=600,
        )
        (self.folder / 'log').write_bytes(run.stdout)
        return run.returncode

    def printed(self, log: str = 'log') -> str:
        return (self.folder / log).read_text()

    def error(self, log: str = 'log') -> str:
        """The one line that a run has ended with."""
        printed = self.printed(log)
        assert 'Traceback' not in printed, printed[-4000:]
        (line,) = [line for line in printed.splitlines() if line.startswith('error: ')]
        return line


def free_port() -> int:
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return server.getsockname()[1]


@pytest.fixture(scope='session')
def server() -> Iterator[subprocess.Popen]:
    program = [sys.executable, str(Path(__file__).with_name('run_server.py'))]
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    env = dict(os.environ, PYTHONPATH=path, OMP_NUM_THREADS='1', PYTHONWARNINGS='ignore')
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def workspace(tmp_path: Path, tiny_image_folder: Path) -> Path:
    (tmp_path / 'tiny.py').write_text(CONFIG)
    (tmp_path / 'faults.py').write_text(FAULTS)
    return tmp_path


@pytest.fixture
def runs(server: subprocess.Popen, workspace: Path) -> Runs:
    return Runs(server, workspace)


@pytest.fixture
def outcome(workspace: Path):
    """All that a run in a folder of the workspace ended with, but for times."""

    def outcome(name: str) -> dict:
        folder = workspace / name
        saved = torch.load(folder / (folder / 'last_checkpoint').read_text(), weights_only=True)
        parts = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers', 'progress')
        scalars = saved['message_hub']['log_scalars']
        return dict(
            {part: saved[part] for part in parts},
            meta={key: saved['meta'][key] for key in ('epoch', 'iter', 'seed')},
            log={key: value['log'] for key, value in scalars.items() if 'time' not in key and key != 'train/memory'},
        )

    return outcome


@pytest.fixture
def assert_same():
    """Bit for bit."""

    def compare(a: object, b: object, where: str = '') -> None:
        assert type(a) is type(b), where
        if isinstance(a, torch.Tensor):
            assert torch.equal(a, b), where
        elif isinstance(a, dict):
            assert a.keys() == b.keys(), where
            for key in a:
                compare(a[key], b[key], f'{where}.{key}')
        elif isinstance(a, list | tuple):
            for n, pair in enumerate(zip(a, b, strict=True)):
                compare(*pair, f'{where}[{n}]')
        else:
            assert a == b, where

    return compare
