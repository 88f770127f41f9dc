# SPDX-License-Identifier: Apache-2.0
import json
import random

import numpy as np
import pytest
import torch

from ldae.engine.watch.online_evaluation import OnlineEvaluationHook, OnlineKNNHook, build_bounded_dataloader
from ldae.evaluation import extract_features, knn_accuracy, linear_probe, pooled_features
from ldae.evaluation.protocol import score_knn
from ldae.utils import ConfigError


@pytest.fixture
def hook(make_dataloader):
    return OnlineEvaluationHook(
        make_dataloader(100), make_dataloader(50, 'test'), k=5, linear_epochs=3, lrs=(0.1,), weight_decays=(0.0,)
    )


@pytest.fixture
def logged(tmp_path):
    """The lines of the log that hold a key."""

    def read(key):
        lines = next(tmp_path.rglob('scalars.json')).read_text().splitlines()
        return [line for line in map(json.loads, lines) if key in line]

    return read


def features(model, cfg):
    return extract_features(
        lambda images: pooled_features(model, images), build_bounded_dataloader(cfg, 100), model.data_preprocessor
    )


def test_accuracies_are_those_of_the_functions_on_pooled_features(make_runner, make_dataloader, hook):
    runner = make_runner([hook], epochs=1)
    model = runner.train()
    model.eval()
    rows = (*features(model, make_dataloader(100)), *features(model, make_dataloader(50, 'test')))
    knn = knn_accuracy(*rows, k=5)
    linear = linear_probe(*rows, lrs=(0.1,), weight_decays=(0.0,), epochs=3).accuracy
    assert runner.message_hub.get_scalar('knn/top1').current() == pytest.approx(knn)
    assert runner.message_hub.get_scalar('linear/top1').current() == pytest.approx(linear)


def test_images_are_encoded_once_for_both(make_runner, hook, monkeypatch):
    encoded = []
    module = 'ldae.engine.watch.online_evaluation.pooled_features'
    monkeypatch.setattr(module, lambda model, x: encoded.append(len(x)) or pooled_features(model, x))
    make_runner([hook], epochs=1).train()
    assert sum(encoded) == 100 + 50


def test_accuracies_and_cost_are_logged(make_runner, hook, logged, capsys):
    make_runner([hook]).train()
    assert '[2/2]  online 5-NN top-1:' in capsys.readouterr().out
    lines = logged('online/seconds')
    assert [line['step'] for line in lines] == [1, 2]
    for line in lines:
        assert {'knn/top1', 'linear/top1'} <= set(line)
        assert line['online/seconds'] > 0
        assert 0 < line['online/share'] <= 100


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
    monkeypatch.setattr(hook, 'evaluate', lambda runner: epochs.append(runner.epoch + 1) or {})
    make_runner([hook], epochs=5).train()
    assert epochs == [2, 4, 5]


@pytest.fixture
def by_steps(make_dataloader):
    """Options of a runner that counts five steps, which one pass over the data has."""
    loader = dict(make_dataloader(20), batch_size=4, sampler=dict(type='DefaultSampler', shuffle=True))
    return dict(train_dataloader=loader, train_cfg=dict(by_epoch=False, max_iters=5, val_interval=5))


def test_a_loop_by_iterations_is_evaluated_every_few_steps(make_runner, hook, by_steps, logged, capsys):
    hook.by_epoch, hook.interval = False, 2
    make_runner([hook], **by_steps).train()
    assert [line['step'] for line in logged('knn/top1')] == [2, 4, 5]
    assert 'Iter [4/5]  online 5-NN' in capsys.readouterr().out


def test_a_loop_by_iterations_has_no_epochs_to_count(make_runner, hook, by_steps, logged, capsys):
    make_runner([hook], **by_steps).train()
    assert 'by_epoch=False' in capsys.readouterr().out
    assert len(logged('knn/top1')) == 1


def test_images_are_bounded_by_a_fixed_choice(make_dataloader):
    first, second = (build_bounded_dataloader(make_dataloader(100), 30) for _ in range(2))
    assert len(first.dataset) == 30
    assert first.dataset.indices == second.dataset.indices != list(range(30))
    assert sum(len(batch['inputs']) for batch in first) == 30


def test_ranks_share_the_test_images(hook, monkeypatch):
    x, y = torch.randn(60, 4), torch.arange(60) % 3
    rows = (x, y, x[:20] + 0.1, y[:20])
    whole = score_knn(hook.protocol, *rows)[5]
    counts = []
    module = 'ldae.evaluation.knn'
    monkeypatch.setattr(f'{module}.all_reduce', lambda value: counts.append(int(value)))
    for rank in range(3):
        monkeypatch.setattr(f'{module}.get_dist_info', lambda rank=rank: (rank, 3))
        score_knn(hook.protocol, *rows)
    assert 100 * sum(counts) / 20 == whole


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(k=0), 'OnlineEvaluationHook.k=0'),
        (dict(linear_epochs=0), 'OnlineEvaluationHook.linear_epochs=0'),
        (dict(interval=0), 'OnlineEvaluationHook.interval=0'),
        (dict(k=20, max_train_images=10), 'lower k'),
        (dict(k=None, linear_epochs=None), 'nothing to evaluate'),
    ],
)
def test_bad_options_are_one_clear_line(make_dataloader, options, message):
    with pytest.raises(ConfigError, match=message):
        OnlineEvaluationHook(make_dataloader(10), make_dataloader(10), **options)


@pytest.mark.parametrize(
    ('data', 'reason'),
    [
        (dict(with_label=False), 'set with_label=True'),
        (dict(data_root='nowhere'), 'nowhere'),
        (None, 'no labelled images'),
    ],
)
def test_without_labelled_images_the_hook_is_left_out_in_one_line(data, reason, make_runner, make_dataloader, capsys):
    train = data and make_dataloader(20, **data)
    hook = OnlineEvaluationHook(train, make_dataloader(10, 'test'), k=5)
    runner = make_runner([hook], epochs=1)
    runner.train()
    (line,) = [line for line in ''.join(capsys.readouterr()).splitlines() if 'OnlineEvaluationHook is' in line]
    assert 'OnlineEvaluationHook is left out: ' in line
    assert reason in line
    assert 'knn/top1' not in runner.message_hub.log_scalars


def test_the_knn_hook_is_the_online_evaluation_without_linear_layers(make_runner, make_dataloader, tmp_path):
    make_runner([OnlineKNNHook(make_dataloader(100), make_dataloader(50, 'test'), k=5)], epochs=1).train()
    lines = [json.loads(line) for line in next(tmp_path.rglob('scalars.json')).read_text().splitlines()]
    (line,) = [line for line in lines if 'knn/top1' in line]
    assert set(line) == {'knn/top1', 'knn/seconds', 'knn/share', 'step'}


def test_bad_options_of_the_knn_hook_name_it(make_dataloader):
    with pytest.raises(ConfigError, match='OnlineKNNHook.k=0'):
        OnlineKNNHook(make_dataloader(10), make_dataloader(10), k=0)
