# SPDX-License-Identifier: Apache-2.0
"""The same encoder, images and seed have the same score, whichever tool is asked."""

import json
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import init_default_scope

import ldae
from ldae.config import load_config
from ldae.engine import OnlineEvaluationHook
from ldae.evaluation import PROTOCOL, extract_features, pooled_features, score
from ldae.evaluation.probe_data import labelled_dataloader, probe_dataloaders
from ldae.registry import MODELS

OPTIONS = dict(lrs=(0.1, 1.0, 10.0), weight_decays=(0.0, 1e-3))
LIMITS = dict(max_train_images=300, max_test_images=200)


@pytest.fixture(scope='module')
def config():
    cfg = load_config('ldae::ldae/demo_fashion-mnist.py')
    init_default_scope('mmpretrain')
    return cfg


@pytest.fixture(scope='module')
def checkpoint(config, tmp_path_factory):
    """The demo's l-DAE with random weights and a fitted PCA."""
    torch.manual_seed(0)
    model = MODELS.build(dict(config.model, data_preprocessor=config.data_preprocessor))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    model.tokenizer.fit([torch.randn(64, 1, 28, 28)])
    path = tmp_path_factory.mktemp('run') / 'epoch_1.pth'
    torch.save(dict(meta=dict(cfg=config.pretty_text), state_dict=model.state_dict()), path)
    return path


@pytest.fixture(scope='module')
def protocol():
    return PROTOCOL.replace(epochs=3, **OPTIONS)


@pytest.fixture(scope='module')
def probed(checkpoint, protocol, tmp_path_factory):
    """What ``ldae.probe`` gives, and its folder."""
    folder = tmp_path_factory.mktemp('probe')
    return ldae.probe(checkpoint, protocol=protocol, k=[20, 5], work_dir=folder, **LIMITS), folder


@pytest.fixture(scope='module')
def by_hand(checkpoint, config, protocol):
    """``score`` of pooled features."""
    model = ldae.get_model(checkpoint=checkpoint)
    sets = []
    for loader, limit in zip(probe_dataloaders(config), LIMITS.values(), strict=True):
        preprocess = partial(model.data_preprocessor, training=False)
        encode = partial(pooled_features, model)
        sets += extract_features(encode, labelled_dataloader(loader, limit), preprocess)
    return score(protocol, *sets, ks=(5, 20))


def test_the_probe_finds_what_score_finds(probed, by_hand):
    (row,) = probed[0].rows
    assert row.knn == {k: round(value, 2) for k, value in by_hand.knn.items()}
    found = by_hand.as_dict()
    assert {key: getattr(row, key) for key in found if key != 'knn'} == {
        key: value for key, value in found.items() if key != 'knn'
    }


def test_the_online_evaluation_finds_what_score_finds(checkpoint, config, by_hand):
    loaders = [dict(part, sampler=dict(type='DefaultSampler', shuffle=False)) for part in probe_dataloaders(config)]
    hook = OnlineEvaluationHook(*loaders, linear_epochs=3, **OPTIONS, **LIMITS)
    hook.by_epoch = False
    runner = SimpleNamespace(model=ldae.get_model(checkpoint=checkpoint))
    hook.before_train(runner)
    assert hook.evaluate(runner) == {
        'knn/top1': pytest.approx(by_hand.knn[20]),
        'linear/top1': pytest.approx(by_hand.linear.accuracy),
    }


def test_results_name_the_protocol_and_what_is_overridden(probed, protocol):
    scores, folder = probed
    content = json.loads((folder / 'probe.json').read_text())
    assert content['protocol'] == json.loads(json.dumps(protocol.as_dict()))
    assert content['protocol']['overrides'] == ['epochs', 'lrs', 'weight_decays']
    assert str(protocol) in (folder / 'probe.md').read_text()
    assert content['chosen']['held_out'] == content['results'][0]['held_out'] == scores.chosen.held_out


def test_each_class_keeps_its_share_of_the_images(probed, config):
    assert probed[0].data == dict(train_images=300, test_images=200, classes=10)
    loader = labelled_dataloader(probe_dataloaders(config)[0], 30)
    labels = torch.cat([torch.stack([s.gt_label for s in batch['data_samples']]).flatten() for batch in loader])
    assert sorted(labels.unique(return_counts=True)[1].tolist()) == [3] * 10
