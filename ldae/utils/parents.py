# SPDX-License-Identifier: Apache-2.0
"""Processes that end with the one that has started them, also where that is killed."""

import ctypes
import os
import signal
import sys

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
