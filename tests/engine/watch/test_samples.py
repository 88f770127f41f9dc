# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldae.engine.watch import samples as module
from ldae.engine.watch.samples import SamplesHook
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


def test_wrong_options_are_one_line():
    with pytest.raises(ConfigError, match='SamplesHook.num=0 is out of range'):
        SamplesHook(num=0)
