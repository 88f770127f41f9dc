# SPDX-License-Identifier: Apache-2.0
"""Gradients as an optimizer is about to use them."""

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

ONE = torch.ones(())


def gradients_of(optimizer: Optimizer) -> list[Tensor]:
    """Gradients of the parameters that have one."""
    gradients = [param.grad for group in optimizer.param_groups for param in group['params']]
    return [gradient for gradient in gradients if gradient is not None]


def gradient_norm(optimizer: Optimizer) -> Tensor:
    """2-norm of all gradients together, on their device: nothing is read back. 0 where there are none. Of shards, it is the
    norm of the whole, and all processes must come here."""
    gradients = gradients_of(optimizer)
    if not gradients:
        return torch.zeros((), device=optimizer.param_groups[0]['params'][0].device)
    norm = get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def is_not_finite(optimizer: Optimizer) -> Tensor:
    """Whether a gradient isn't finite: a bool on their device, which isn't read."""
    gradients = gradients_of(optimizer)
    first = gradients[0] if gradients else None
    if first is None or first.device.type != 'cpu' or isinstance(first, DTensor):
        return ~torch.isfinite(gradient_norm(optimizer))
    # A norm is a loop over tensors on a CPU, milliseconds for small models. This is one call, that of GradScaler, which
    # takes any mixture of types there; a product with one changes nothing.
    found = torch.zeros(())
    torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, ONE)
    return found.bool()
