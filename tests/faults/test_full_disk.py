# SPDX-License-Identifier: Apache-2.0
"""A disk of 2 MB that fills up while a run writes its checkpoints."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ldae.engine.resume.safe_checkpoint import latest_checkpoint

# Checkpoints of a third of the disk, so that logs have room where they haven't.
WIDER = ['--cfg-options', 'arch.embed_dims=32', 'arch.feedforward_channels=64', 'arch.num_layers=2']


@pytest.fixture
def disk(workspace: Path) -> Iterator[Path]:
    folder = workspace / 'disk'
    folder.mkdir()
    mount = subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', str(folder)], capture_output=True, text=True
    )
    if mount.returncode:
        pytest.skip(f'may not mount a disk here: {mount.stderr.strip()}')
    yield folder
    subprocess.run(['umount', '-l', str(folder)], check=True)


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if 'epoch' in path.name or 'iter' in path.name)


@pytest.mark.parametrize('on_error', ['stop', 'continue'])
def test_a_full_disk_keeps_the_checkpoint_before_and_what_follows_is_as_chosen(
    runs, disk, outcome, assert_same, on_error
):
    options = [*WIDER, f'default_hooks.checkpoint.on_error={on_error}', '--resume', '--work-dir']
    assert runs.run(*options, 'whole') == 0, runs.printed()[-4000:]
    assert runs.run(*options, 'disk', env=dict(FAULT='fill 0 10')) == (2 if on_error == 'stop' else 0)
    said = runs.error() if on_error == 'stop' else runs.printed()
    assert f'could not be written to {disk}: No space left on device; the checkpoints before it are whole' in said
    assert 'Traceback' not in runs.printed()
    (kept,) = checkpoints(disk)  # one with max_keep_ckpts=1, and no unfinished one
    assert latest_checkpoint(disk).name == kept
    step = torch.load(disk / kept, weights_only=True)['meta']['iter']
    assert step <= 12
    (disk / 'filler').unlink()
    assert runs.run(*options, 'disk') == 0, runs.printed()[-4000:]
    assert f'iter: {step}' in runs.printed()
    assert_same(outcome('disk'), outcome('whole'))


def test_a_truncated_newest_checkpoint_gives_way_to_the_one_before(runs, workspace, outcome, assert_same):
    options = ['--resume', '--cfg-options', 'default_hooks.checkpoint.max_keep_ckpts=2', '--work-dir', 'cut']
    assert runs.run(*options) == 0, runs.printed()[-4000:]
    whole, newest = outcome('cut'), workspace / 'cut' / 'epoch_4.pth'
    os.truncate(newest, newest.stat().st_size // 2)
    assert runs.run(*options) == 0, runs.printed()[-4000:]
    assert 'epoch_4.pth cannot be read' in runs.printed()
    assert 'resumed epoch: 3' in runs.printed()
    assert_same(outcome('cut'), whole)
