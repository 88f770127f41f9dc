# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from small_models import PREPROCESSOR, shuffle
from torch import nn

from ldae.registry import MODELS


@pytest.fixture
def built() -> Callable[[dict], nn.Module]:
    """Config -> a model with such weights."""

    def build(config: dict) -> nn.Module:
        init_default_scope('mmpretrain')
        model = shuffle(MODELS.build(dict(dict(data_preprocessor=dict(PREPROCESSOR)), **config['model'])))
        model._config = Config(config)
        return model

    return build


@pytest.fixture
def saved(tmp_path: Path, built) -> Callable[[dict], Path]:
    """Config -> a checkpoint, as training writes it."""

    def save(config: dict) -> Path:
        path = tmp_path / 'epoch_1.pth'
        full = dict(default_scope='mmpretrain', data_preprocessor=dict(PREPROCESSOR), **config)
        meta = dict(cfg=Config(full).pretty_text)
        torch.save(dict(meta=meta, state_dict=built(config).state_dict()), path)
        return path

    return save
