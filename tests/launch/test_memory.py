# SPDX-License-Identifier: Apache-2.0
"""What training takes, against what autograd says that it keeps."""

import pytest
import torch
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample

from ldae.config import load_config
from ldae.launch import batch
from ldae.launch.batch import check_memory, needed
from ldae.registry import MODELS
from ldae.utils import ConfigError

SMALL = dict(embed_dims=192, num_layers=3, num_heads=3, feedforward_channels=768)


def build(name: str) -> torch.nn.Module:
    cfg = load_config(name)
    cfg.model.backbone.arch = SMALL
    cfg.model.backbone.pop('init_cfg', None)
    if 'head' in cfg.model and 'in_channels' in cfg.model.head:
        cfg.model.head.in_channels = 192
    if cfg.model.type == 'MAE':
        cfg.model.neck.embed_dim = 192
    init_default_scope('mmpretrain')
    return MODELS.build(dict(cfg.model, data_preprocessor=cfg.model.get('data_preprocessor') or cfg.data_preprocessor))


@pytest.mark.parametrize(
    'name', ['ldae/vit-b_pca', 'ldae/vit-b_pca_masked', 'mae/vit-b_256_400e', 'benchmarks/ldae_vit-b_finetune']
)
def test_what_is_kept_for_the_backward_pass_is_close_to_what_autograd_saves(name):
    model = build(f'ldae::{name}.py').train()
    if hasattr(model, 'tokenizer'):
        model.tokenizer.fit([torch.randn(64, 3, 256, 256)])
    given = dict(inputs=torch.rand(2, 3, 256, 256), data_samples=[DataSample().set_gt_label(i) for i in range(2)])
    batch = model.data_preprocessor(given, True)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved = {}

    def pack(value):
        saved[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        losses = model(batch['inputs'], batch['data_samples'], mode='loss')
    assert losses
    kept = sum(size for place, size in saved.items() if place not in weights) / 2
    assert 0.6 * kept < needed(model)[1] < 1.05 * kept


def test_a_batch_larger_than_the_memory_is_one_line_with_one_that_fits(monkeypatch):
    model = build('ldae::ldae/vit-b_pca.py')
    fixed, image = needed(model)
    assert fixed == sum(p.numel() * (16 if p.requires_grad else 4) for p in model.parameters())
    monkeypatch.setattr(batch, 'memory', lambda device: fixed + 40 * image)
    check_memory(model, 40, 'cpu')
    with pytest.raises(
        ConfigError, match='batches of 41 images take .* GB or more .* this cpu has .*: add --batch-size 32'
    ):
        check_memory(model, 41, 'cpu')
    check_memory(model, 41, 'cpu', half=True)
    monkeypatch.setattr(batch, 'memory', lambda device: fixed)
    with pytest.raises(ConfigError, match='add --model small, or --scale auto'):
        check_memory(model, 1, 'cpu')


def test_a_container_has_what_it_may_have(monkeypatch, tmp_path):
    whole = batch.memory('cpu')
    (tmp_path / 'memory.max').write_text('1000000\n')
    monkeypatch.setattr(batch, 'CGROUP', tmp_path / 'memory.max')
    assert batch.memory('cpu') == 1_000_000 < whole
    (tmp_path / 'memory.max').write_text('max\n')
    assert batch.memory('cpu') >= whole
