# SPDX-License-Identifier: Apache-2.0
"""Signals that ask a run to stop, and what it answers."""

import multiprocessing
import signal
import threading

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
#: Exit status of a run that such a signal has stopped and that can be resumed: "try again later" of sysexits.h.
STOPPED_STATUS = 75


def end_workers() -> None:
    """End data loaders' workers at once.

    A loader that garbage collection finds in a cycle closes its queues before it says goodbye, so that its workers wait for
    more to do; and they take the SIGTERM that they are then sent for one that the main process will answer.
    """
    workers = multiprocessing.active_children()
    if workers and threading.current_thread() is threading.main_thread():
        # Torch's handler raises an error for each, in whatever is going on.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join()
