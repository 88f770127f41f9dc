# SPDX-License-Identifier: Apache-2.0
"""Files that would run code if they were unpickled, handed in wherever a file is read: nothing runs, one line says why."""

import re
import shutil
from pathlib import Path

import pytest
import torch


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return Path.touch, (self.trace,)


@pytest.fixture
def bomb(workspace: Path) -> Path:
    path = workspace / 'bomb.pth'
    meta = dict(epoch=1, iter=8, cfg='', bomb=Bomb(workspace / 'ran'))
    torch.save(dict(state_dict={}, tokenizer='PatchPCATokenizer', attempts=[], meta=meta), path)
    return path


def options(*pairs: str) -> tuple:
    return '--cfg-options', *pairs


DEMO = 'ldae::ldae/demo_fashion-mnist.py'
WAYS = {
    'resume': ('train', '--resume', 'bomb.pth'),
    'resume from the work dir': ('train', '--resume'),
    'load_from': ('train', *options('load_from=bomb.pth')),
    'Pretrained': (
        'train',
        *options('model.backbone.init_cfg.type=Pretrained', 'model.backbone.init_cfg.checkpoint=bomb.pth'),
    ),
    'tokenizer': ('train', *options('model.tokenizer.checkpoint=bomb.pth')),
    'test': ('test', 'tiny.py', 'bomb.pth'),
    'probe': ('probe', 'bomb.pth', '--config', DEMO, '--scale', 'fashion-mnist_subset'),
    'benchmark': ('benchmark', 'linear', 'bomb.pth'),
    'export': ('export', 'bomb.pth', '--to', 'timm', '--out', 'out.pth'),
    'denoise': ('denoise', 'bomb.pth', 'images/val/a/0.jpg', '--out', 'out.png'),
    'reproduce': ('reproduce', 'work_dirs/tiny'),
}


# The file for what it is, a work dir that has nothing else, a file that isn't a tokenizer's.
REASON = re.compile('pickled Python objects|none of the 1 checkpoints .* can be read|Unpickling')


@pytest.mark.parametrize('way', WAYS)
def test_nothing_of_a_malicious_file_runs(runs, workspace, bomb, way):
    folder = workspace / 'work_dirs' / 'tiny'
    folder.mkdir(parents=True)
    for name in ('epoch_1.pth', 'state.pth', 'rank_0.pth'):
        shutil.copy(bomb, folder / name)
    tool, *argv = WAYS[way]
    assert runs.run(*argv, tool=tool) == 2, runs.printed()[-3000:]
    assert REASON.search(runs.error())
    assert not (workspace / 'ran').exists()


def test_the_file_would_have_run(workspace, bomb):
    torch.load(bomb, weights_only=False)
    assert (workspace / 'ran').exists()
