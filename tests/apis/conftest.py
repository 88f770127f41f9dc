# SPDX-License-Identifier: Apache-2.0
"""A small l-DAE, and the same picture in many forms."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope

from ldae.config import load_config
from ldae.models import LDAE
from ldae.registry import MODELS


@pytest.fixture(scope='session')
def small_ldae() -> LDAE:
    """The demo's l-DAE with random weights and a fitted PCA, and its config as get_model leaves it."""
    torch.manual_seed(0)
    cfg = load_config('ldae::ldae/demo_fashion-mnist.py')
    init_default_scope('mmpretrain')
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    model.tokenizer.fit([torch.randn(64, 1, 28, 28)])
    model._config = cfg
    return model.eval()


@pytest.fixture(scope='session')
def small_checkpoint(small_ldae: LDAE, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its checkpoint, as a Runner writes it."""
    path = tmp_path_factory.mktemp('small') / 'epoch_1.pth'
    torch.save(dict(meta=dict(cfg=small_ldae._config.pretty_text), state_dict=small_ldae.state_dict()), path)
    return path


@pytest.fixture
def rgb() -> np.ndarray:
    """uint8 (40, 50, 3): all channels and directions differ."""
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
