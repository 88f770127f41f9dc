# SPDX-License-Identifier: Apache-2.0
import io
import logging
import sys

import pytest
from mmengine.hooks import Hook

from ldae.engine.watch import progress
from ldae.engine.watch.progress import ProgressBarHook
from ldae.utils import ConfigError


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
