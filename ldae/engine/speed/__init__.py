# SPDX-License-Identifier: Apache-2.0
"""Precision, compilation, memory, and models that are shared among processes."""

from .activation_checkpoint import ActivationCheckpointHook
from .compile_blocks import CompileBlocksHook
from .matmul_precision import MatmulPrecisionHook
from .optim_wrappers import AutocastOptimWrapper
from .sharding import FullyShardedModel
