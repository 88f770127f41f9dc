# SPDX-License-Identifier: Apache-2.0
"""Gradients as an optimizer is about to use them."""

import torch
from mmengine.optim import BaseOptimWrapper, OptimWrapperDict
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer


def optimizers_of(wrapper: BaseOptimWrapper | OptimWrapperDict) -> list[Optimizer]:
    """The optimizers inside of an optimizer wrapper: one, unless parts of the model have their own."""
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    return [part.optimizer for part in wrappers]


def gradient_norm(optimizer: Optimizer) -> Tensor:
    """2-norm of all gradients together, on their device: nothing is read back. 0 where there are none."""
    params = [param for group in optimizer.param_groups for param in group['params']]
    gradients = [param.grad for param in params if param.grad is not None]
    return get_total_norm(gradients) if gradients else torch.zeros((), device=params[0].device)
