# SPDX-License-Identifier: Apache-2.0
"""From a config and a command's options to a run."""

from .batch import scale_batch, world_size
from .benchmark import benchmark
from .build import build_runner
from .evaluation import evaluate
from .prepare import LaunchOptions, prepare
from .training import train
