# SPDX-License-Identifier: Apache-2.0
"""Signals that ask a run to stop, and what it answers; and processes that end with the one that has started them."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
#: Exit status of a run that such a signal has stopped and that can be resumed: "try again later" of sysexits.h.
STOPPED_STATUS = 75
#: And after Ctrl-C, as shells have it.
INTERRUPTED_STATUS = 128 + signal.SIGINT


def hear_interrupts() -> None:
    """Let SIGINT interrupt a process that was told to ignore it: a shell script starts what it runs in the background so,
    and a later ``kill -INT`` or ``timeout -s INT`` would go unheard."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def interrupts_later() -> Iterator[None]:
    """Whatever SIGINT and SIGTERM do, they do it after the block: a process that is being started must not get lost."""
    caught: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, lambda received, _: caught.append(received)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in caught:
            signal.raise_signal(number)


def end_workers() -> None:
    """End data loaders' workers at once.

    A loader that garbage collection finds in a cycle closes its queues before it says goodbye, so that its workers wait for
    more to do; and they take the SIGTERM that they are then sent for one that the main process will answer."""
    workers = multiprocessing.active_children()
    if workers and threading.current_thread() is threading.main_thread():
        # Torch's handler raises an error for each, in whatever is going on.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join()


#: The process that has started this one and wants it to end with itself.
PARENT_VARIABLE = 'LDAE_PARENT'
PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int, number: int) -> None:
    """Let the kernel send a signal to this process when its parent ends, or send it now if it has ended; Linux only."""
    if sys.platform != 'linux':
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def end_with_named_parent() -> None:
    """The same with SIGTERM, at which training saves and stops, if the environment names a parent; processes that this one
    starts have other ones."""
    name = os.environ.pop(PARENT_VARIABLE, '')
    if name.isdigit() and (os.getppid() == int(name) or not _is_alive(int(name))):
        end_with_parent(int(name), signal.SIGTERM)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
