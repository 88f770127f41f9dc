# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.runner import Runner
from shrink import needs_extras, shrink, write_images

from ldae.config import configs_root
from ldae.launch import build_runner, prepare

Train = Callable[..., Runner]


@pytest.fixture(scope='session')
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp('images'))


@pytest.fixture(scope='session')
def train(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Train:
    """``train('ldae/vit-b_pca.py', checkpoint=None) -> Runner`` after two shrunken steps."""

    def run(name: str, checkpoint: Path | None = None) -> Runner:
        needs_extras(name)
        cfg = shrink(configs_root() / name, data_root, tmp_path_factory.mktemp('work'), checkpoint)
        runner = build_runner(prepare(cfg))
        runner.train()
        return runner

    return run


@pytest.fixture(scope='session')
def checkpoints(train: Train) -> dict[str, Path]:
    """Checkpoints of shrunken pre-training by method, for the benchmarks to start from."""
    pretrained = dict(ldae='ldae/vit-b_pca.py', mae='mae/vit-b_300e.py')
    pretrained |= dict(mocov3='mocov3/vit-b_300e.py', simmim='simmim/vit-b_800e.py')
    return {method: Path(train(name).work_dir) / 'epoch_1.pth' for method, name in pretrained.items()}
