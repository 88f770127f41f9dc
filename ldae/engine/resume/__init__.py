# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are whole, and runs that go on from them as if they had not stopped."""

from .check_loaded import CheckLoadedHook
from .loops import ResumableEpochLoop, ResumableIterLoop
from .plain_checkpoint import PlainCheckpointHook
from .safe_checkpoint import SafeCheckpointHook
from .step_seed import StepSeedHook
from .stop_on_signal import StopOnSignalHook
