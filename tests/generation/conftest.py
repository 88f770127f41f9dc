# SPDX-License-Identifier: Apache-2.0
"""Small l-DAEs of several targets, with random weights."""

from collections.abc import Callable

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from ldae.config import load_config
from ldae.models import LDAE
from ldae.registry import MODELS


@pytest.fixture(scope='session')
def small_model() -> Callable[..., LDAE]:
    """``small_model(head, schedule, **options)``: the demo's l-DAE with a fitted PCA, its config as get_model leaves it."""

    def build(head: str = 'NoiseHead', schedule: str = 'linear_gamma_sq', **options) -> LDAE:
        torch.manual_seed(0)
        cfg: Config = load_config('ldae::ldae/demo_fashion-mnist.py')
        cfg.model.head = dict(type=f'ldae.{head}')
        cfg.model.noiser = dict(type='ldae.GaussianNoiser', schedule=schedule)
        cfg.merge_from_dict({f'model.{name}': value for name, value in options.items()})
        init_default_scope('mmpretrain')
        model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
        model.tokenizer.fit([torch.randn(64, 1, 28, 28)])
        model._config = cfg
        return model.eval()

    return build
