# SPDX-License-Identifier: Apache-2.0
import json
import random

import numpy as np
import pytest
import torch

from ldae.engine.hooks.online_knn import OnlineKNNHook, build_bounded_dataloader
from ldae.evaluation import extract_features, knn_accuracy, pooled_features
from ldae.utils import ConfigError


@pytest.fixture
def hook(make_dataloader):
    return OnlineKNNHook(make_dataloader(100), make_dataloader(50, 'test'), k=5)


def test_accuracy_is_that_of_knn_on_pooled_features(make_runner, make_dataloader, hook):
    runner = make_runner([hook], epochs=1)
    model = runner.train()
    model.eval()
    rows = [
        part
        for cfg in (make_dataloader(100), make_dataloader(50, 'test'))
        for part in extract_features(
            lambda images: pooled_features(model, images),
            build_bounded_dataloader(cfg, 100),
            model.data_preprocessor,
        )
    ]
    expected = knn_accuracy(*rows, k=5)
    assert runner.message_hub.get_scalar('knn/top1').current() == pytest.approx(expected)


def test_accuracy_and_seconds_are_logged(make_runner, hook, tmp_path, capsys):
    make_runner([hook]).train()
    assert '[2/2]  online 5-NN top-1:' in capsys.readouterr().out
    lines = [json.loads(line) for line in next(tmp_path.rglob('scalars.json')).read_text().splitlines()]
    logged = [line for line in lines if 'knn/top1' in line]
    assert [line['step'] for line in logged] == [1, 2]
    assert all(line['knn/seconds'] > 0 for line in logged)


def test_training_is_the_same_with_and_without(make_runner, hook):
    def weights(hooks):
        state = make_runner(hooks).train().state_dict()
        return torch.cat([value.flatten().float() for value in state.values()])

    assert torch.equal(weights([hook]), weights([]))


def test_random_streams_and_mode_are_left_as_they_were(make_runner, hook):
    runner = make_runner([hook], epochs=1)
    runner.train()
    runner.model.train()
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    hook.evaluate(runner)
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1][1])
    assert torch.equal(torch.get_rng_state(), before[2])
    assert runner.model.training
    assert runner.model.backbone.training


def test_runs_at_the_interval_and_after_the_last_epoch(make_runner, hook, monkeypatch):
    hook.interval = 2
    epochs = []
    monkeypatch.setattr(hook, 'evaluate', lambda runner: epochs.append(runner.epoch + 1) or 0.0)
    make_runner([hook], epochs=5).train()
    assert epochs == [2, 4, 5]


def test_images_are_bounded_by_a_fixed_choice(make_dataloader):
    first, second = (build_bounded_dataloader(make_dataloader(100), 30) for _ in range(2))
    assert len(first.dataset) == 30
    assert first.dataset.indices == second.dataset.indices != list(range(30))
    assert sum(len(batch['inputs']) for batch in first) == 30


def test_ranks_share_the_test_images(make_runner, hook, monkeypatch):
    x, y = torch.randn(60, 4), torch.arange(60) % 3
    whole = hook._shared_accuracy(x, y, x[:20] + 0.1, y[:20])
    counts = []
    module = 'ldae.engine.hooks.online_knn'
    monkeypatch.setattr(f'{module}.all_reduce', lambda value: counts.append(int(value)))
    for rank in range(3):
        monkeypatch.setattr(f'{module}.get_dist_info', lambda rank=rank: (rank, 3))
        hook._shared_accuracy(x, y, x[:20] + 0.1, y[:20])
    assert 100 * sum(counts) / 20 == whole


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(k=0), 'OnlineKNNHook.k=0'),
        (dict(interval=0), 'OnlineKNNHook.interval=0'),
        (dict(k=20, max_train_images=10), 'lower k'),
    ],
)
def test_bad_options_are_one_clear_line(make_dataloader, options, message):
    with pytest.raises(ConfigError, match=message):
        OnlineKNNHook(make_dataloader(10), make_dataloader(10), **options)


def test_data_without_labels_is_one_clear_line(make_runner, make_dataloader):
    hook = OnlineKNNHook(make_dataloader(20, with_label=False), make_dataloader(10, 'test'), k=5)
    with pytest.raises(ConfigError, match='with_label=True'):
        make_runner([hook], epochs=1).train()
