# SPDX-License-Identifier: Apache-2.0
"""From a config and a command's options to a run."""

from .batch import scale_batch, world_size
from .build import build_runner
from .prepare import LaunchOptions, prepare

__all__ = ['LaunchOptions', 'build_runner', 'prepare', 'scale_batch', 'world_size']
