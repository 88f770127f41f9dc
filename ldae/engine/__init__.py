# SPDX-License-Identifier: Apache-2.0
from . import hooks  # noqa: F401
from .loops import ResumableEpochLoop, ResumableIterLoop
from .optim_constructors import AdversarialOptimWrapperConstructor
from .optim_wrappers import AutocastOptimWrapper
from .sharding import FullyShardedModel

__all__ = [
    'AdversarialOptimWrapperConstructor',
    'AutocastOptimWrapper',
    'FullyShardedModel',
    'ResumableEpochLoop',
    'ResumableIterLoop',
]
