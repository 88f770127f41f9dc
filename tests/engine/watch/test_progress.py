# SPDX-License-Identifier: Apache-2.0
import io
import logging
import re
import sys
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from ldae.engine.watch import progress
from ldae.engine.watch.deferred_logging import DeferredIterTimerHook, ReducedRuntimeInfoHook
from ldae.engine.watch.progress import BriefRunner, FirstStepsHook, ProgressBarHook, describe_pace
from ldae.utils import ConfigError

LOADER = dict(
    batch_size=2,
    num_workers=0,
    collate_fn=dict(type='ldae.batch_collate'),
    dataset=dict(type='ldae.IDXDataset', split='train', indices=32),
    sampler=dict(type='DefaultSampler', shuffle=True),
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Standard error as a terminal, and a bar that shows every step."""
    screen = Terminal()
    monkeypatch.setattr(sys, 'stderr', screen)
    tqdm = progress.tqdm
    monkeypatch.setattr(
        progress, 'tqdm', lambda **kw: tqdm(**kw | dict(file=screen, mininterval=0, dynamic_ncols=False))
    )
    return screen


def test_the_bar_counts_all_steps_and_shows_time_left_and_loss(make_runner, terminal):
    hook = ProgressBarHook(interval=2, desc='l-DAE')
    runner = make_runner([hook])
    handlers = list(runner.logger.handlers)
    runner.train()
    shown = terminal.getvalue()
    assert hook.bar.n == hook.bar.total == 4
    assert 'l-DAE: 100%' in shown
    assert 'loss=' in shown
    assert 'lr=0.001' in shown
    assert 'images/s=' in shown
    assert '<' in shown  # elapsed<remaining
    assert runner.logger.handlers == handlers


def test_log_lines_are_written_past_the_bar(make_runner, terminal):
    runner = make_runner([ProgressBarHook()])
    kinds = []
    runner.register_hook(LookAtHandlers(kinds), priority='LOWEST')
    runner.train()
    assert kinds == ['_TqdmLoggingHandler']


class LookAtHandlers(Hook):
    def __init__(self, kinds):
        self.kinds = kinds

    def before_train(self, runner):
        console = [h for h in runner.logger.handlers if not isinstance(h, logging.FileHandler)]
        self.kinds.extend(type(handler).__name__ for handler in console)


def test_silent_where_the_output_is_no_terminal(make_runner, capsys):
    hook = ProgressBarHook()
    make_runner([hook], epochs=1).train()
    assert hook.bar.disable
    assert '%|' not in capsys.readouterr().err


def test_the_interval_must_be_positive():
    with pytest.raises(ConfigError, match='ProgressBarHook.interval=0'):
        ProgressBarHook(interval=0)


def test_on_a_terminal_the_bar_stands_in_the_place_of_the_steps_lines(make_runner, terminal, monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, 'stdout', screen)
    runner = make_runner([ProgressBarHook()])
    runner.train()
    assert 'Epoch(train)' not in screen.getvalue()
    assert 'Checkpoints will be saved' in screen.getvalue()
    assert Path(runner.logger.log_file).read_text().count('Epoch(train)') == 4


def test_the_first_steps_are_logged_and_how_long_the_rest_will_take(make_runner):
    hooks = dict(
        runtime_info=dict(type='ldae.ReducedRuntimeInfoHook'),
        timer=dict(type='ldae.DeferredIterTimerHook'),
        logger=dict(type='LoggerHook', interval=7, ignore_last=False),
        fit_tokenizer=dict(type='ldae.FitTokenizerHook'),
    )
    runner = make_runner([FirstStepsHook()], epochs=2, default_hooks=hooks, train_dataloader=LOADER)
    runner.train()
    lines = Path(runner.logger.log_file).read_text().splitlines()
    steps = [tuple(map(int, re.findall(r'\[ *(\d+)[\]/]', line))) for line in lines if 'Epoch(train)' in line]
    assert steps == [(1, 1), (1, 2), (1, 5), (1, 7), (1, 10), (1, 14), (1, 16), (2, 7), (2, 14), (2, 16)]
    assert all('loss: ' in line for line in lines if 'Epoch(train)' in line)
    (pace,) = [line for line in lines if ' steps that are left' in line]
    assert 'for the 22 steps' in pace


def test_a_resumed_run_logs_its_own_first_steps(make_runner):
    runner = make_runner([FirstStepsHook(), ReducedRuntimeInfoHook(), DeferredIterTimerHook()])
    runner.train_loop._iter, runner.train_loop._epoch = 2, 1
    runner.train()
    assert Path(runner.logger.log_file).read_text().count('Epoch(train)') == 2


def test_the_pace_of_a_run_is_said_and_advice_given_where_it_is_long():
    assert describe_pace(4000, 0.5, 32, 0.02, validates=True) == [
        '0:33:20 for the 4,000 steps that are left, and validation: 0.5 s a step, 64 images/s, 2% of the time waiting for images'
    ]
    _, shorter, reading = describe_pace(400_000, 0.5, 32, 0.4)
    assert all(option in shorter for option in ('--scale auto --budget', '--epochs', '--fast'))
    assert 'pack-dataset' in reading
    assert len(describe_pace(10, 0.5, 32, 0.9)) == 1


def test_processes_without_a_gpu_normalise_by_their_own_images(monkeypatch):
    monkeypatch.setattr(Runner, 'wrap_model', lambda runner, cfg, model: model)
    runner, model = BriefRunner.__new__(BriefRunner), nn.Sequential(nn.Linear(2, 2), nn.SyncBatchNorm(2))
    runner._distributed = True
    found = runner.wrap_model(None, model)
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in found.modules())
    images = torch.randn(8, 2)
    torch.testing.assert_close(found(images).mean(0), torch.zeros(2), atol=1e-6, rtol=0)
