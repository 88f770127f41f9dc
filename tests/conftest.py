# SPDX-License-Identifier: Apache-2.0
"""Shared fixtures. Threads are set before torch is imported: on few cores, more of them only get in each other's way."""

import os

os.environ.setdefault('OMP_NUM_THREADS', '1')

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

torch.set_num_threads(1)

CLASSES = ('a', 'b')
PER_CLASS = dict(train=8, val=4)


def write_image(path: Path, rng: np.random.Generator, size: int = 40) -> None:
    """A smooth random JPEG: patches of it have structure that a PCA can find."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC))


@pytest.fixture(autouse=True)
def _default_scope_of_its_own():
    """A Runner leaves its default scope behind; no test shall depend on whether another has built one."""
    before = DefaultScope._instance_dict.copy()
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


@pytest.fixture
def tiny_image_folder(tmp_path: Path) -> Path:
    """``<tmp>/images/{train,val}/{a,b}/*.jpg``: 16 and 8 images."""
    rng = np.random.default_rng(0)
    root = tmp_path / 'images'
    for split, count in PER_CLASS.items():
        for name in CLASSES:
            for i in range(count):
                write_image(root / split / name / f'{i}.jpg', rng)
    return root


@pytest.fixture
def tiny_annotated_folder(tmp_path: Path) -> Path:
    """ImageNet's other layout: flat ``<tmp>/annotated/{train,val}/*.jpg``, labels in ``meta/{train,val}.txt``."""
    rng = np.random.default_rng(0)
    root = tmp_path / 'annotated'
    (root / 'meta').mkdir(parents=True)
    for split, count in PER_CLASS.items():
        lines = []
        for i in range(2 * count):
            write_image(root / split / f'image {i}.jpg', rng)
            lines.append(f'image {i}.jpg {i % 2}\n')
        (root / 'meta' / f'{split}.txt').write_text(''.join(lines))
    return root
