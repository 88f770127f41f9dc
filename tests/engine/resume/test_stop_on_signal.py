# SPDX-License-Identifier: Apache-2.0
import multiprocessing
import os
import signal
from types import SimpleNamespace

import pytest

from ldae.engine import SafeCheckpointHook, StopOnSignalHook
from ldae.utils.signals import STOPPED_STATUS


class Saves(SafeCheckpointHook):
    """Saves when gradients are complete."""

    def __init__(self) -> None:
        self.complete, self.saved_step, self.last_ckpt = True, None, 'iter_8.pth'

    def save_step(self, runner) -> bool:
        self.saved_step = runner.iter + 1 if self.complete else None
        return self.complete


@pytest.fixture
def run():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    lines = []
    checkpoint, hook = Saves(), StopOnSignalHook()
    runner = SimpleNamespace(iter=7, hooks=[checkpoint], logger=SimpleNamespace(warning=lines.append))
    hook.before_train(runner)
    yield SimpleNamespace(runner=runner, hook=hook, checkpoint=checkpoint, lines=lines)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_the_run_after_the_step_and_its_checkpoint(run, number):
    run.hook.after_train_iter(run.runner, 7)
    assert run.checkpoint.saved_step is None
    os.kill(os.getpid(), number)
    with pytest.raises(SystemExit) as end:
        run.hook.after_train_iter(run.runner, 7)
    assert end.value.code == STOPPED_STATUS == 75
    assert run.checkpoint.saved_step == 8
    assert run.lines == [f'Stopped by {number.name} after step 8; iter_8.pth is written: go on with --resume']


def test_it_waits_for_accumulated_gradients(run):
    os.kill(os.getpid(), signal.SIGTERM)
    run.checkpoint.complete = False
    run.hook.after_train_iter(run.runner, 7)
    run.checkpoint.complete = True
    with pytest.raises(SystemExit):
        run.hook.after_train_iter(run.runner, 7)


def test_afterwards_signals_mean_what_they_meant(run):
    before = signal.signal(signal.SIGUSR1, signal.getsignal(signal.SIGUSR1))
    run.hook.after_train(run.runner)
    assert signal.getsignal(signal.SIGUSR1) != before


def signalled_twice() -> None:
    hook = StopOnSignalHook()
    hook.before_train(None)
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)  # passed on by a launcher: the same one
    hook._caught_at -= 2
    os.kill(os.getpid(), signal.SIGTERM)
    print('still there', flush=True)


def test_a_second_signal_ends_the_process_at_once(capfd: pytest.CaptureFixture):
    process = multiprocessing.get_context('fork').Process(target=signalled_twice)
    process.start()
    process.join(timeout=60)
    assert (process.exitcode, capfd.readouterr().out) == (128 + signal.SIGTERM, '')
