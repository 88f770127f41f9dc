# SPDX-License-Identifier: Apache-2.0
import os
import signal

import pytest
from torch.utils.data import DataLoader, Dataset

from ldae.datasets import start_worker


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
