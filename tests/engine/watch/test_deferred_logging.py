# SPDX-License-Identifier: Apache-2.0
import logging

import numpy as np
import pytest
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer, MessageHub

from ldae.engine.watch.deferred_logging import extend_scalar

LATE = dict(runtime_info=dict(type='ldae.ReducedRuntimeInfoHook'), timer=dict(type='ldae.DeferredIterTimerHook'))
SCHEDULE = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=5)]


class CallsHook(Hook):
    """Notes at which steps a key gets values."""

    priority = 'LOWEST'

    def __init__(self):
        self.lengths = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.lengths.append(len(runner.message_hub.log_scalars.get('train/time', HistoryBuffer()).data[0]))


def train(make_runner, hooks, interval, lines=None):
    """A run of 3 epochs of 2 steps; its history, and the number of values at each step."""
    defaults = dict(
        logger=dict(type='LoggerHook', interval=interval, ignore_last=False),
        checkpoint=dict(type='CheckpointHook', interval=-1, save_last=False),
        fit_tokenizer=dict(type='ldae.FitTokenizerHook'),
        **hooks,
    )
    calls = CallsHook()
    runner = make_runner([calls], epochs=3, default_hooks=defaults, param_scheduler=SCHEDULE)
    if lines is not None:
        handler = logging.Handler()
        handler.emit = lambda record: lines.append(record.getMessage())
        runner.logger.addHandler(handler)
    runner.train()
    return runner.message_hub, calls.lengths


def test_histories_are_those_of_mmengines_hooks(make_runner):
    (expected, _), (ours, lengths) = train(make_runner, {}, 1), train(make_runner, LATE, 100)
    assert ours.log_scalars.keys() == expected.log_scalars.keys() >= {'train/lr', 'train/loss', 'train/time'}
    for key, buffer in expected.log_scalars.items():
        for mine, theirs in zip(ours.log_scalars[key].data, buffer.data, strict=True):
            assert mine.dtype == theirs.dtype
            assert len(mine) == 6 if 'time' in key else np.array_equal(mine, theirs)
    assert ours.runtime_info['iter'] == expected.runtime_info['iter'] == 5
    assert ours.runtime_info['eta'] == 0
    assert lengths == [0, 2, 2, 4, 4, 6]  # at the end of each epoch


def test_a_log_line_finds_the_values_of_its_step(make_runner):
    lines, expected = [], []
    train(make_runner, {}, 1, expected)
    _, lengths = train(make_runner, LATE, 1, lines)
    assert lengths == [1, 2, 3, 4, 5, 6]
    losses = [[line.split('loss: ')[1] for line in text if 'loss: ' in line] for text in (lines, expected)]
    assert len(losses[0]) == 6
    assert losses[0] == losses[1]


@pytest.mark.parametrize('before', [0, 1, 4])
def test_values_at_once_are_as_those_one_by_one(before):
    hubs = [MessageHub('at once'), MessageHub('one by one')]
    for hub in hubs:
        if before:
            hub._log_scalars['x'] = HistoryBuffer(np.arange(before) + 0.5, np.full(before, 2), max_length=5)
    values = [0.1, 2, 7.5]
    extend_scalar(hubs[0], 'x', values)
    for value in values:
        hubs[1].update_scalar('x', value)
    (log, counts), expected = hubs[0].get_scalar('x').data, hubs[1].get_scalar('x').data
    assert log.dtype == expected[0].dtype
    assert counts.dtype == expected[1].dtype
    assert np.array_equal(log, expected[0])
    assert np.array_equal(counts, expected[1])
    assert hubs[0].get_scalar('x').max_length == hubs[1].get_scalar('x').max_length
    assert hubs[0].state_dict().keys() == hubs[1].state_dict().keys()
