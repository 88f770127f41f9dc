# SPDX-License-Identifier: Apache-2.0
"""How the processes that read data live and die."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import cv2

from ldae.registry import FUNCTIONS
from ldae.utils.signals import SIGNALS, end_with_parent


@FUNCTIONS.register_module()
def start_worker(worker_id: int) -> None:
    """First thing in a data loader's worker: a signal to all processes of a job is for the main one to answer, however long
    its step takes; one that the main process itself has sent ends the worker, and so does its
    end, of whatever kind."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        end_with_parent(parent.pid, signal.SIGKILL)
    if hasattr(signal, 'sigwaitinfo'):
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        threading.Thread(target=_end_by_main_process, daemon=True).start()
    else:  # macOS: at its end the main process kills its workers anyhow
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _end_by_main_process() -> None:
    while signal.sigwaitinfo(SIGNALS).si_pid != os.getppid():
        pass
    os._exit(0)


@contextmanager
def forked_pool(workers: int, start: Callable, *args: Any) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes that inherit what this one holds, and of which each begins with ``start(*args)``; in all, OpenCV has one
    thread. This one's end before the fork: a process that inherits sleeping ones would wait for them for ever."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        # A pool that notices when a worker dies; multiprocessing's own would wait for ever.
        with ProcessPoolExecutor(workers, multiprocessing.get_context('fork'), start, args) as pool:
            yield pool
    finally:
        cv2.setNumThreads(threads)
