# SPDX-License-Identifier: Apache-2.0
"""The tools as a user starts them: in processes of their own, from a folder of their own."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

ARCH = 'dict(_delete_=True, embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)'

# What a user writes: configs that inherit one of ours and change a few things.
CONFIGS = {
    'tiny.py': f"""
_base_ = 'ldae::ldae/fashion-mnist_pca.py'
train_dataloader = dict(batch_size=16, dataset=dict(data_root=None, indices=160))
val_dataloader = dict(dataset=dict(data_root=None, indices=50))
test_dataloader = val_dataloader
model = dict(backbone=dict(arch={ARCH}))
train_cfg = dict(max_epochs=2)
default_hooks = dict(checkpoint=dict(interval=1), logger=dict(interval=1))
custom_imports = dict(imports=['rank_weights'])
custom_hooks = [dict(type='RankWeightsHook')]
""",
    'small.py': f"""
_base_ = 'ldae::ldae/vit-b_pca.py'
model = dict(tokenizer=dict(img_size=32), backbone=dict(arch={ARCH}))
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=32, edge='short'),
    dict(type='CenterCrop', crop_size=32),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=4, num_workers=1, dataset=dict(pipeline=pipeline))
val_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(pipeline=pipeline))
train_cfg = dict(max_epochs=1)
""",
    'small_gan.py': """
_base_ = 'ldae::tokenizers/conv-vae_f8_kl-gan.py'
geometry = dict(img_size=32, patch_size=8, latent_dim=4, downsample=4, base_channels=8, layers_per_block=1)
model = dict(tokenizer=geometry, adversarial=dict(start_step=1, base_channels=4, num_layers=2))
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=32, edge='short'),
    dict(type='CenterCrop', crop_size=32),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(pipeline=pipeline))
val_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(pipeline=pipeline))
param_scheduler = []
train_cfg = dict(max_epochs=1)
default_hooks = dict(logger=dict(interval=1))
custom_imports = dict(imports=['rank_weights'])
custom_hooks = [dict(type='RankWeightsHook')]
""",
    'small_linear.py': f"""
_base_ = 'ldae::benchmarks/ldae_vit-b_linear.py'
model = dict(
    backbone=dict(arch={ARCH}, img_size=32, frozen_stages=2),
    neck=dict(input_features=32),
    head=dict(in_channels=32, num_classes=2, topk=1),
)
train_dataloader = dict(batch_size=4, num_workers=0)
val_dataloader = dict(batch_size=4, num_workers=0)
val_evaluator = test_evaluator = dict(topk=1)
train_cfg = dict(max_epochs=1)
""",
    'small_finetune.py': f"""
_base_ = 'ldae::benchmarks/ldae_vit-b_finetune.py'
data_preprocessor = dict(num_classes=2)
model = dict(backbone=dict(arch={ARCH}, img_size=32), head=dict(in_channels=32, num_classes=2, topk=1))
train_dataloader = dict(batch_size=4, num_workers=0)
val_dataloader = dict(batch_size=4, num_workers=0)
val_evaluator = test_evaluator = dict(topk=1)
train_cfg = dict(max_epochs=1)
""",
    # A hook of one's own: it leaves what the run looked like from each rank.
    'rank_weights.py': """
import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class RankWeightsHook(Hook):
    def after_train(self, runner):
        model = getattr(runner.model, 'module', runner.model)
        torch.save(model.state_dict(), f'{runner.work_dir}/rank_{dist.get_rank()}.pth')
""",
}


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder outside of the clone, with a user's configs."""
    for name, text in CONFIGS.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def free_port() -> int:
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return server.getsockname()[1]


@pytest.fixture
def run(workspace: Path) -> Callable[..., subprocess.CompletedProcess]:
    """``run('train.py', 'tiny.py', ...)`` starts a tool there; it must end with ``status``."""

    def run(tool: str, *args: object, status: int = 0) -> subprocess.CompletedProcess:
        command = [str(ROOT / 'tools' / tool), *map(str, args)]
        command = command if tool.endswith('.sh') else [sys.executable, *command]
        env = dict(os.environ, PYTHONPATH=f'{ROOT}:{workspace}', PYTHON=sys.executable, OMP_NUM_THREADS='1')
        env['PORT'] = str(free_port())
        result = subprocess.run(command, cwd=workspace, env=env, capture_output=True, text=True, timeout=600)
        assert result.returncode == status, result.stdout[-4000:] + result.stderr[-4000:]
        return result

    return run
