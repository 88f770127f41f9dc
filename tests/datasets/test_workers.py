# SPDX-License-Identifier: Apache-2.0
import multiprocessing
import os
import signal
import subprocess
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from ldae.datasets import start_worker
from ldae.datasets.workers import forked_pool


class Signalled(Dataset):
    """Reading the first sample sends a signal to the worker that reads it."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> int:
        if index == 0:
            os.kill(os.getpid(), signal.SIGUSR1)
        return index


def test_a_signal_to_the_whole_job_leaves_the_workers_alive():
    loader = DataLoader(Signalled(), num_workers=1, worker_init_fn=start_worker)
    assert [int(batch) for batch in loader] == [0, 1, 2]


def test_without_it_the_worker_is_dead():
    before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)  # whatever this process has made of the signal is inherited
    try:
        with pytest.raises(RuntimeError, match='DataLoader worker'):
            list(DataLoader(Signalled(), num_workers=1))
    finally:
        signal.signal(signal.SIGUSR1, before)


def wait_for_signal(pipe: Connection) -> None:
    """A worker that another process signals, says what it has left to live, and waits for the main process."""
    start_worker(0)
    for name in ('-TERM', '-USR1', '-INT', '-TERM'):
        subprocess.run(['kill', name, str(os.getpid())], check=True)
    pipe.send(signal.getitimer(signal.ITIMER_REAL))
    pipe.recv()


def test_a_worker_outlives_any_step_but_ends_by_the_main_process():
    here, there = multiprocessing.Pipe()
    worker = multiprocessing.get_context('fork').Process(target=wait_for_signal, args=(there,))
    worker.start()
    assert here.recv() == (0.0, 0.0)
    assert worker.is_alive()
    while worker.is_alive():  # a signal is lost while one of its kind is pending, whoever has sent that
        worker.terminate()
        worker.join(0.05)
    assert worker.exitcode == 0


def state_of(thread: str) -> str:
    """``S`` of one that sleeps."""
    return Path(f'/proc/self/task/{thread}/stat').read_text().rpartition(')')[2].split()[0]


@pytest.mark.skipif(not os.path.exists('/proc/self/task'), reason='no /proc here')
@pytest.mark.skipif(cv2.getNumberOfCPUs() < 2, reason='OpenCV starts no threads on one core')
def test_a_pool_is_forked_without_the_sleeping_threads_of_opencv():
    before, threads = cv2.getNumThreads(), set(os.listdir('/proc/self/task'))
    try:
        cv2.setNumThreads(1)  # those of tests before
        cv2.setNumThreads(2)
        while not (opencvs := set(os.listdir('/proc/self/task')) - threads):
            cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (9, 9), 2)
        while any(state_of(thread) != 'S' for thread in opencvs):
            pass
        with forked_pool(1, cv2.setNumThreads, 1) as pool:  # which has to end them
            assert pool.submit(cv2.getNumThreads).result(timeout=600) == 1
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)
