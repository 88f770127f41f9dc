# SPDX-License-Identifier: Apache-2.0
"""ckpt-chaos kills a training run at files that it is about to write, resumes it, and compares what comes out."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

CONFIG = """
_base_ = 'ldae::ldae/demo_fashion-mnist.py'
train_dataloader = dict(batch_size=16, dataset=dict(indices=64))
model = dict(backbone=dict(arch=dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)))
train_cfg = dict(max_epochs=3, val_interval=100)
default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=1),
    logger=dict(interval=1),
    online_knn=dict(interval=100, max_train_images=50, max_test_images=10),
    pictures=dict(interval=100),
)
"""

# What must come out the same: weights, the optimizer's state and the loss of every step.
OUTCOME = """
import hashlib, sys, torch
saved = torch.load(sys.argv[1], weights_only=True)
digest = hashlib.sha256()
for name, value in sorted(saved['state_dict'].items()):
    digest.update(name.encode() + value.numpy().tobytes())
for _, state in sorted(saved['optimizer']['state'].items()):
    for _, value in sorted(state.items()):
        digest.update(torch.as_tensor(value).numpy().tobytes())
print(digest.hexdigest(), saved['message_hub']['log_scalars']['train/loss']['log'].tolist())
"""


def test_a_run_killed_at_files_of_a_save_resumes_to_the_same_end(tmp_path):
    (tmp_path / 'tiny.py').write_text(CONFIG)
    (tmp_path / 'outcome.py').write_text(OUTCOME)
    train = [sys.executable, ROOT / 'tools/train.py', tmp_path / 'tiny.py', '--work-dir', '{out}', '--resume']
    outcome = f'{sys.executable} {tmp_path}/outcome.py {{out}}/epoch_3.pth'
    options = ['--work', tmp_path / 'runs', '--max-points', 8, '--jobs', 2, '--timeout', 120]
    options += ['--step-regex', r'resumed epoch: (\d+)', '--result-cmd', outcome]
    command = [sys.executable, '-m', 'ckpt_chaos', 'run', *options, '--', *train]
    env = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')
    result = subprocess.run(list(map(str, command)), cwd=tmp_path, env=env, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    (passed,) = re.findall(r'^PASS: (\d+)\s*$', result.stdout, re.MULTILINE)  # and no other verdict
    assert int(passed) == 9
