# SPDX-License-Identifier: Apache-2.0
import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from torch import nn
from torch.utils.data import DataLoader

from ldae.datasets import IDXDataset
from ldae.engine import FitTokenizerHook
from ldae.models import PatchPCATokenizer
from ldae.utils import ConfigError


def make_runner(work_dir, latent_dim: int = 8) -> SimpleNamespace:
    model = nn.Module()
    model.tokenizer = PatchPCATokenizer(28, 7, 1, latent_dim)
    model.data_preprocessor = None
    tokenizer = dict(type='ldae.PatchPCATokenizer', img_size=28, patch_size=7, in_channels=1, latent_dim=latent_dim)
    cfg = Config(dict(model=dict(tokenizer=tokenizer), train_dataloader=dict(dataset=dict(type='ldae.IDXDataset'))))
    dataset = IDXDataset(split='test', indices=range(200), with_label=False)
    dataset.images = dataset.images.float() / 255
    loader = DataLoader(dataset, batch_size=8, collate_fn=default_collate)
    return SimpleNamespace(
        model=model, cfg=cfg, work_dir=str(work_dir), train_dataloader=loader, logger=logging.getLogger('test')
    )


def test_fits_once_keeps_the_result_and_takes_it_from_the_work_dir(tmp_path, monkeypatch):
    first = make_runner(tmp_path)
    FitTokenizerHook(num_images=150).before_train(first)
    assert first.model.tokenizer.is_fitted
    assert len(list(tmp_path.glob('tokenizer_*.pth'))) == 1
    monkeypatch.setattr('ldae.engine.tokenizer.fit_hooks.fit_tokenizer', lambda *a: pytest.fail('fitted again'))
    second = make_runner(tmp_path)
    FitTokenizerHook(num_images=150).before_train(second)
    assert torch.equal(second.model.tokenizer.basis, first.model.tokenizer.basis)
    # A checkpoint's tokenizer, that of a resumed run, is left alone.
    FitTokenizerHook(num_images=10).before_train(second)


def test_the_same_config_with_other_images_is_fitted_anew(tmp_path):
    first, second = make_runner(tmp_path), make_runner(tmp_path)
    second.train_dataloader.dataset.images = second.train_dataloader.dataset.images.flip(3)
    for runner in (first, second):
        FitTokenizerHook().before_train(runner)
    assert len(list(tmp_path.glob('tokenizer_*.pth'))) == 2
    assert not torch.equal(second.model.tokenizer.basis, first.model.tokenizer.basis)


@pytest.mark.parametrize(
    'change',
    [
        lambda cfg: cfg.model.tokenizer.update(latent_dim=4),
        lambda cfg: cfg.train_dataloader.dataset.update(data_root='other'),
        lambda cfg: cfg.model.update(data_preprocessor=dict(mean=[1.0])),
    ],
)
def test_the_key_depends_on_all_that_the_result_depends_on(tmp_path, change):
    cfg, hook = make_runner(tmp_path).cfg, FitTokenizerHook()
    before = hook.key(cfg)
    assert hook.key(cfg) == before
    assert FitTokenizerHook(num_images=1).key(cfg) != before
    assert FitTokenizerHook(seed=1).key(cfg) != before
    assert FitTokenizerHook(batch_size=7).key(cfg) == before
    change(cfg)
    assert hook.key(cfg) != before


def test_a_model_without_tokenizer_is_left_alone(tmp_path):
    runner = make_runner(tmp_path)
    runner.model = nn.Linear(1, 1)
    FitTokenizerHook().before_train(runner)
    assert not list(tmp_path.iterdir())


def test_wrong_options_are_one_clear_line():
    with pytest.raises(ConfigError, match='num_images=0 is out of range'):
        FitTokenizerHook(num_images=0)
