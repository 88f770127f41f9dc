# SPDX-License-Identifier: Apache-2.0
"""Signals that ask a run to stop, and what it answers."""

import signal

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
#: Exit status of a run that such a signal has stopped and that can be resumed: "try again later" of sysexits.h.
STOPPED_STATUS = 75
