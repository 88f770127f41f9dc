# SPDX-License-Identifier: Apache-2.0
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from PIL import Image
from torch.utils.data import DataLoader

from ldae.engine.watch import samples as module
from ldae.engine.watch.samples import SamplesHook, validations_before
from ldae.utils import ConfigError


@pytest.fixture
def runner_of(make_runner, make_dataloader):
    """``runner_of(hook, epochs)``: validates after each epoch."""

    def make(hook: SamplesHook, epochs: int = 2):
        val = dict(make_dataloader(8, 'test', with_label=False), sampler=dict(type='DefaultSampler', shuffle=False))
        loop = dict(val_dataloader=val, val_cfg=dict(), val_evaluator=dict(type='ldae.DenoisingMetric'))
        loop |= dict(test_dataloader=val, test_cfg=dict(), test_evaluator=dict(type='ldae.DenoisingMetric'))
        return make_runner([hook], epochs=epochs, **loop)

    return make


def test_samples_of_the_same_noise_are_drawn_in_validation(runner_of, tmp_path, monkeypatch):
    seen, sample = [], module.sample
    monkeypatch.setattr(module, 'sample', lambda *args, **options: seen.append(sample(*args, **options)) or seen[-1])
    runner_of(SamplesHook(num=5, steps=3)).train()
    assert len(seen) == 2
    assert not np.array_equal(seen[0].images, seen[1].images)  # the weights have changed
    assert sorted(path.name for path in (tmp_path / 'pictures').iterdir()) == ['samples_1.png', 'samples_2.png']
    assert np.array_equal(np.array(Image.open(tmp_path / 'pictures' / 'samples_2.png'))[:28, :28, 0], seen[1].images[0])


def test_sampling_leaves_the_training_as_it_was(runner_of):
    weights = []
    for interval in (1, 100):
        runner = runner_of(SamplesHook(interval, num=2, steps=2))
        runner.train()
        weights.append(runner.model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_distance_joins_the_metrics_of_a_test(runner_of, small_checkpoint: Path):
    runner = runner_of(SamplesHook(num=20, steps=2, features=str(small_checkpoint)))
    runner.load_or_resume()
    runner.model.tokenizer.fit([torch.rand(50, 1, 28, 28)])
    metrics = runner.test()
    assert metrics['samples/images'] == 20
    assert metrics['samples/distance'] > 0
    assert 'samples/fid' not in metrics


def test_every_second_validation(runner_of, tmp_path):
    runner_of(SamplesHook(interval=2, num=1, steps=2), epochs=3).train()
    assert [path.name for path in (tmp_path / 'pictures').iterdir()] == ['samples_2.png']


@pytest.mark.parametrize(
    ('loop', 'places', 'validated'),
    [
        (dict(type=EpochBasedTrainLoop, max_epochs=7), [1, 2, 3, 7], [1, 2, 3, 7]),
        (dict(type=EpochBasedTrainLoop, max_epochs=7, val_interval=2), [2, 4, 6, 7], [1, 2, 3, 4]),
        (dict(type=EpochBasedTrainLoop, max_epochs=7, val_interval=2, val_begin=3), [4, 6], [1, 2]),
        (dict(type=IterBasedTrainLoop, max_iters=100, val_interval=30), [30, 60, 90], [1, 2, 3]),
    ],
)
def test_validations_are_numbered_by_their_place_so_that_a_resumed_run_goes_on(loop, places, validated):
    kind, found = loop.pop('type'), []
    for place in places:
        runner = SimpleNamespace(epoch=place, iter=place)
        runner._train_loop = kind(runner, DataLoader([0] * 4), **loop)
        found.append(validations_before(runner))
    assert found == validated


def test_the_best_is_not_chosen_by_what_most_validations_have_not():
    runner = SimpleNamespace(hooks=[SimpleNamespace(key_indicators=['denoising/psnr', 'samples/distance'])])
    with pytest.raises(ConfigError, match="save_best='samples/distance' needs samples at each validation"):
        SamplesHook(interval=2, num=1).before_train(runner)


def test_wrong_options_are_one_line():
    with pytest.raises(ConfigError, match='SamplesHook.num=0 is out of range'):
        SamplesHook(num=0)
