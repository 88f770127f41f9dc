# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import pytest
import torch
from mmengine.runner import EpochBasedTrainLoop
from torch import nn

from ldae.engine import CheckLoadedHook
from ldae.models import LDAEViT
from ldae.utils import ConfigError

ARCH = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)


def runner_with(checkpoint: str, **kwargs) -> SimpleNamespace:
    init_cfg = dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.')
    backbone = LDAEViT(ARCH, 16, 8, init_cfg=init_cfg, **kwargs)
    loop = EpochBasedTrainLoop.__new__(EpochBasedTrainLoop)
    return SimpleNamespace(model=nn.ModuleDict(dict(backbone=backbone)), _train_loop=loop)


@pytest.fixture
def checkpoint(tmp_path) -> str:
    """A pre-training checkpoint with a decoder that transfer doesn't take."""
    state = {f'backbone.{key}': value for key, value in LDAEViT(ARCH, 16, 8).state_dict().items()}
    torch.save(dict(state_dict=dict(state, **{'neck.x': torch.ones(1)})), tmp_path / 'pre.pth')
    return str(tmp_path / 'pre.pth')


@pytest.mark.parametrize('kwargs', [{}, dict(conditioned=False), dict(out_type='avg_featmap', pool_norm=True)])
def test_a_matching_checkpoint_passes(checkpoint, kwargs):
    assert CheckLoadedHook().before_run(runner_with(checkpoint, **kwargs)) is None


def test_no_checkpoint_or_a_missing_one_says_which_option_to_set():
    with pytest.raises(ConfigError, match='model.backbone.init_cfg.checkpoint is not set'):
        CheckLoadedHook().before_run(runner_with(''))
    with pytest.raises(ConfigError, match='file nowhere.pth does not exist'):
        CheckLoadedHook().before_run(runner_with('nowhere.pth'))


def test_testing_needs_no_pretrained_checkpoint():
    runner = runner_with('')
    runner._train_loop = dict(type='EpochBasedTrainLoop')
    assert CheckLoadedHook().before_run(runner) is None


def test_missing_parameters_are_an_error_with_names(checkpoint):
    state = torch.load(checkpoint)
    del state['state_dict']['backbone.layers.0.attn.qkv.weight']
    torch.save(state, checkpoint)
    with pytest.raises(ConfigError, match=r'lacks 1 of the model.*layers.0.attn.qkv.weight'):
        CheckLoadedHook().before_run(runner_with(checkpoint))


def test_another_shape_is_one_clear_line(checkpoint):
    state = torch.load(checkpoint)
    state['state_dict']['backbone.layers.0.attn.qkv.weight'] = torch.ones(3, 3)
    torch.save(state, checkpoint)
    with pytest.raises(ConfigError, match='does not fit model.backbone.*size mismatch') as error:
        CheckLoadedHook().before_run(runner_with(checkpoint))
    assert '\n' not in str(error.value)


def test_a_checkpoint_of_something_else_is_an_error(tmp_path):
    torch.save(dict(state_dict=dict(w=torch.ones(1))), tmp_path / 'x.pth')
    with pytest.raises(ConfigError, match="has no parameter under 'backbone.'"):
        CheckLoadedHook().before_run(runner_with(str(tmp_path / 'x.pth')))


def test_resuming_from_another_model_is_an_error():
    runner, hook = SimpleNamespace(model=nn.Linear(2, 3)), CheckLoadedHook()
    state = nn.Linear(2, 3).state_dict()
    assert hook.after_load_checkpoint(runner, dict(state_dict=state)) is None
    assert hook.after_load_checkpoint(runner, {f'module.{k}': v for k, v in state.items()}) is None
    with pytest.raises(ConfigError, match='holds another shape for 1 of'):
        hook.after_load_checkpoint(runner, dict(state_dict=nn.Linear(4, 3).state_dict()))
    with pytest.raises(ConfigError, match='lacks 2 of'):
        hook.after_load_checkpoint(runner, dict(state_dict={}))
