# SPDX-License-Identifier: Apache-2.0
"""How the processes that read data live and die."""

import multiprocessing
import os
import signal
import threading

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
