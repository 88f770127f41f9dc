# SPDX-License-Identifier: Apache-2.0
"""Thousands of steps cost no more memory and no more work each than the first hundreds."""

import ctypes
import gc
import statistics
import sys
from pathlib import Path

import pytest
from mmengine.hooks import Hook

from ldae.config import load_config
from ldae.launch import build_runner, prepare

# By step 650 all that an epoch may do has been done twice: validation, pictures, k-NN, a checkpoint.
STEPS, SETTLED = 2000, 650


class Gauges(Hook):
    """Calls of functions, Python's and C's, in each step, and resident memory where it may be compared."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.bytes: dict[int, int] = {}
        self._count = 0

    def before_train(self, runner) -> None:
        sys.setprofile(self._note)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.calls.append(self._count)
        step = runner.iter + 1
        if step in (SETTLED, STEPS):
            self.bytes[step] = resident_bytes()
        self._count = 0

    def _note(self, frame, event, arg) -> None:
        self._count += event in ('call', 'c_call')


def resident_bytes() -> int:
    gc.collect()
    # What the allocator only keeps for later use, after the tests before this one as well, is not in use.
    ctypes.CDLL('libc.so.6').malloc_trim(0)
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * 4096


@pytest.fixture(scope='module')
def gauges(tmp_path_factory) -> Gauges:
    cfg = load_config('ldae::ldae/demo_fashion-mnist.py')
    cfg.merge_from_dict(
        {
            'train_dataloader.batch_size': 8,
            'train_dataloader.dataset.indices': 800,
            'model.backbone.arch': dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32),
            'train_cfg.max_epochs': STEPS // 100,
            'train_cfg.val_interval': 2,
            'default_hooks.logger.interval': 10,
            'log_level': 'WARNING',
        }
    )
    cfg.work_dir = str(tmp_path_factory.mktemp('long'))
    runner = build_runner(prepare(cfg))
    gauges = Gauges()
    runner.register_hook(gauges)
    try:
        runner.train()
    finally:
        sys.setprofile(None)
    return gauges


def test_memory_does_not_grow(gauges):
    assert len(gauges.calls) == STEPS
    grown = gauges.bytes[STEPS] - gauges.bytes[SETTLED]
    assert grown < 8 * 2**20, f'{grown / 2**20:.1f} MiB in {STEPS - SETTLED} steps'


def test_a_step_does_not_get_dearer(gauges):
    # Calls, not seconds: those of a processor depend on what else the machine does.
    early, late = (statistics.median(part) for part in (gauges.calls[100:SETTLED], gauges.calls[-400:]))
    assert late < 1.02 * early, f'{early:.0f} calls a step at first, {late:.0f} at last'
