# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager:
    """Context in which neither an enclosing autocast nor TF32 lowers the precision of products and convolutions (their
    gradients' products come later, and take TF32 where it is on)."""
    if torch.get_float32_matmul_precision() != 'highest' or device.type == 'cuda':
        return _without_tf32(device)
    return _without_autocast(device)


def _without_autocast(device: torch.device) -> AbstractContextManager:
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


@contextmanager
def _without_tf32(device: torch.device) -> Iterator[None]:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision('highest')
    torch.backends.cudnn.allow_tf32 = False  # of convolutions, where it is on unless told otherwise
    try:
        with _without_autocast(device):
            yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
