# SPDX-License-Identifier: Apache-2.0
"""Speed doesn't change results: 20 steps with and without the fast settings, from the command line."""

import pytest
from launching import scalars

# bfloat16 keeps 3 digits; a loss is a mean over thousands of values that are rounded so.
TOLERANCE = dict(fp32=1e-5, bf16=1e-3)
OPTIONS = ['train_dataloader.batch_size=8', 'train_cfg.max_epochs=1', 'param_scheduler=None']


@pytest.fixture
def losses(run, workspace):
    """``losses(name, *options)``: losses of 20 steps of training with these options."""

    def train(name: str, *options: str) -> list[float]:
        run('train.py', 'tiny.py', '--no-validate', '--work-dir', name, *options, '--cfg-options', *OPTIONS)
        found = [row['loss'] for row in scalars(workspace / name) if 'loss' in row]
        assert len(found) == 20
        return found

    return train


def test_fast_settings_train_the_same_in_bfloat16(losses):
    plain = losses('plain')
    assert losses('fast', '--fast') == pytest.approx(plain, rel=TOLERANCE['bf16'])
    assert plain[-1] < plain[0]


def test_compiled_blocks_train_the_same_in_float32(losses, workspace):
    compiled = ['--cfg-options', *OPTIONS, 'default_hooks.compile_blocks.type=ldae.CompileBlocksHook']
    assert losses('compiled', *compiled) == pytest.approx(losses('plain'), rel=TOLERANCE['fp32'])
