# SPDX-License-Identifier: Apache-2.0
from . import hooks  # noqa: F401
from .optim_constructors import AdversarialOptimWrapperConstructor
from .optim_wrappers import AutocastOptimWrapper

__all__ = ['AdversarialOptimWrapperConstructor', 'AutocastOptimWrapper']
