# SPDX-License-Identifier: Apache-2.0
import multiprocessing
import os
import signal
import threading
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from ldae.engine import SafeCheckpointHook, StopOnSignalHook
from ldae.utils.signals import SIGNALS, STOPPED_STATUS


class Saves(SafeCheckpointHook):
    """Saves when gradients are complete."""

    def __init__(self) -> None:
        self.complete, self.saved_step, self.last_ckpt = True, None, 'iter_8.pth'

    def save_step(self, runner) -> bool:
        self.saved_step = runner.iter + 1 if self.complete else None
        return self.complete


@pytest.fixture
def run():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    # As a process has it that a shell script has started in the background.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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


def test_ctrl_c_saves_and_interrupts(run, capfd):
    os.kill(os.getpid(), signal.SIGINT)
    assert 'SIGINT: stopping after this step, with a checkpoint' in capfd.readouterr().err
    with pytest.raises(KeyboardInterrupt):
        run.hook.after_train_iter(run.runner, 7)
    assert run.lines == ['Stopped by SIGINT after step 8; iter_8.pth is written: go on with --resume']


def test_a_second_ctrl_c_interrupts_at_once(run):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)  # as `timeout -s INT` sends it to the process and to its group
    run.hook._caught_at -= 1
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert run.checkpoint.saved_step is None


@pytest.mark.parametrize(('saved_step', 'stops'), [(7, True), (6, False), (None, False)])
def test_a_validation_is_left_if_the_step_before_it_is_saved(run, saved_step, stops):
    run.hook.after_val_iter(run.runner, 0)
    os.kill(os.getpid(), signal.SIGTERM)
    run.checkpoint.saved_step = saved_step  # seven steps are done
    with pytest.raises(SystemExit) if stops else nullcontext():
        run.hook.after_val_iter(run.runner, 0)
    assert run.lines == (
        ['Stopped by SIGTERM after step 7; iter_8.pth is written: go on with --resume'] if stops else []
    )


def test_a_thread_can_train_too(run):
    hook, failures = StopOnSignalHook(), []

    def train() -> None:
        try:
            hook.before_train(None)
            hook.after_train(None)
        except ValueError as error:
            failures.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert failures == []


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
    process.join(timeout=600)
    assert (process.exitcode, capfd.readouterr().out) == (128 + signal.SIGTERM, '')
