# SPDX-License-Identifier: Apache-2.0
"""The measuring programs run, and print a ratio; what it is depends on the machine."""

import re
import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / 'benchmarks'
TINY = {
    'health.py': '--size tiny --img-size 32 --batch-size 2 --num-images 4 --steps 1',
    'pca_fit.py': '--img-size 32 --patch-size 8 --batch-size 32 --images 64 --runs 1',
    'train_step.py': '--size tiny --img-size 32 --batch-size 2 --steps 1',
}


def test_every_program_is_run_here():
    assert {path.name for path in FOLDER.glob('*.py')} == set(TINY)


@pytest.mark.parametrize('name', TINY)
def test_program_prints_a_ratio_against_a_named_peer(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', [name, *TINY[name].split()])
    runpy.run_path(str(FOLDER / name), run_name='__main__')
    out = capsys.readouterr().out
    assert re.search(
        r'(float32 products|plain loop of timm layers|training time).*(ldae / it = [\d.]+|[\d.]+%)', out
    )
