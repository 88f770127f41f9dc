# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.config import Config


@pytest.fixture
def load() -> Callable[[Path], Config]:
    """Configs of made-up rows: ``a_t10`` and ``a_t20`` differ in transfer, ``wide`` in training."""

    def load(path: Path) -> Config:
        backbone = dict(timestep=20 if path.stem == 'a_t20' else 10, width=2 if path.stem == 'wide' else 1)
        tokenizer = dict(type='ldae.PatchPCATokenizer')
        if path.stem.startswith('learned'):
            tokenizer['checkpoint'] = 'work_dirs/some-scale/patch-ae_d8/tokenizer.pth'
        return Config(
            dict(
                model=dict(backbone=backbone, tokenizer=tokenizer),
                train_dataloader=dict(num_workers=2, dataset=dict(type='ldae.IDXDataset')),
                train_cfg=dict(max_epochs=4),
                default_hooks=dict(checkpoint=dict(interval=-1), online_knn=dict(type='ldae.OnlineKNNHook')),
            )
        )

    return load
