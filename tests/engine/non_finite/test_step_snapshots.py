# SPDX-License-Identifier: Apache-2.0
import random

import numpy as np
import torch
from mmpretrain.structures import DataSample

from ldae.engine.non_finite.step_snapshots import (
    StepSnapshot,
    plain_batch,
    rebuilt_batch,
    rng_states,
    save_snapshots,
    set_rng_states,
)
from ldae.engine.resume.plain_checkpoint import to_plain
from ldae.utils.files import atomic_save


def draws():
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random(), random.gauss(0, 1)


def through_a_file(content, path):
    atomic_save(content, path)
    return torch.load(path, weights_only=True)


def test_random_streams_go_on_as_they_did(tmp_path):
    random.gauss(0, 1)  # leaves a second number for later
    states = rng_states()
    first = draws()
    set_rng_states(through_a_file(to_plain(states), tmp_path / 'rng.pth'))
    assert draws() == first


def test_a_batch_comes_back_with_views_samples_and_where_they_are_from(tmp_path):
    sample = DataSample(metainfo=dict(img_path='a/b.jpg', scale=(3, 4))).set_gt_label(5)
    batch = dict(inputs=[torch.ones(2, 3), torch.zeros(2, 3)], data_samples=[sample, DataSample()])
    back = rebuilt_batch(through_a_file(plain_batch(batch), tmp_path / 'batch.pth'))
    assert torch.equal(torch.stack(back['inputs']), torch.stack(batch['inputs']))
    assert back['data_samples'][0].img_path == 'a/b.jpg'
    assert back['data_samples'][0].scale == (3, 4)
    assert back['data_samples'][0].gt_label.tolist() == [5]
    assert 'gt_label' not in back['data_samples'][1]


def test_a_batch_without_samples_stays_without():
    batch = dict(inputs=torch.ones(2), data_samples=None)
    assert rebuilt_batch(plain_batch(batch))['data_samples'] is None


def test_attempts_are_written_with_time_steps_losses_and_who_made_them(tmp_path):
    attempt = StepSnapshot(7, dict(inputs=torch.ones(2)))
    attempt.seen = torch.tensor([3, 4]), torch.tensor([0.5, float('nan')])
    save_snapshots(tmp_path / 'iter_8', [attempt], seed=11)
    content = torch.load(tmp_path / 'iter_8' / 'rank_0.pth', weights_only=True)
    assert (content['rank'], content['world_size'], content['seed']) == (0, 1, 11)
    assert content['attempts'][0]['iter'] == 7
    assert content['attempts'][0]['t'].tolist() == [3, 4]
    assert content['attempts'][0]['losses'].isnan().tolist() == [False, True]
