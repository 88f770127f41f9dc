# SPDX-License-Identifier: Apache-2.0
"""How the processes that read data live and die."""

import os
import signal
from types import FrameType

from ldae.registry import FUNCTIONS
from ldae.utils.signals import SIGNALS

SECONDS_TO_STOP = 30


@FUNCTIONS.register_module()
def start_worker(worker_id: int) -> None:
    """First thing in a data loader's worker: a signal to all processes of a job is for the main one to answer.

    A second one ends the worker, and half a minute after SIGTERM it ends anyhow: the main process itself may have sent it.
    """
    caught = []

    def catch(number: int, frame: FrameType | None) -> None:
        if caught:
            os._exit(0)
        caught.append(number)
        if number == signal.SIGTERM:
            signal.alarm(SECONDS_TO_STOP)

    for number in SIGNALS:
        signal.signal(number, catch)
