# SPDX-License-Identifier: Apache-2.0
"""Where to compute, and in which precision: what this machine has."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from mmengine.device import get_device

from ldae import compat

from .errors import ConfigError

FOUND = get_device()
DTYPES = dict(bf16=torch.bfloat16, fp16=torch.float16)


def find_device(name: str | torch.device | None = 'auto') -> str:
    """A device by its name; of ``'auto'``, or None, the GPU if there is one, else the CPU. Raises ConfigError if there
    is no such device."""
    if name is None or str(name) == 'auto':
        return 'cpu' if FOUND == 'mps' else FOUND  # on which nothing of this was ever run
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # an AssertionError where torch was built without CUDA
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"device {str(name)!r} can't be used: {reason}") from error
    return str(name)


def use_device(name: str | torch.device | None = 'auto') -> str:
    """Let the Runners that are built from here on compute there; its kind, as in ``'cuda'``."""
    device = torch.device(find_device(name))
    if device.type == 'cuda' and device.index is not None:
        torch.cuda.set_device(device)
    compat.set_runner_device(device.type)
    return device.type


def has_bf16(device: str | torch.device) -> bool:
    """Whether a device has instructions for products in bfloat16; without them they take many times as long as in
    float32."""
    kind = torch.device(device).type
    if kind == 'cuda':
        try:
            return torch.cuda.get_device_capability(device)[0] >= 8
        except (RuntimeError, AssertionError):  # another machine's GPU, of which nothing is known here
            return True
    return kind == 'cpu' and torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def choose_precision(asked: str, device: str | torch.device) -> str:
    """The precision to compute in: ``'fp32'``, ``'bf16'`` or ``'fp16'``. Raises ConfigError for fp16 without a GPU of
    NVIDIA's."""
    if asked == 'fp16' and torch.device(device).type != 'cuda':
        raise ConfigError('precision fp16 needs device cuda: take auto, bf16 or fp32')
    if asked == 'auto':
        return 'bf16' if has_bf16(device) else 'fp32'
    return asked


def autocast(precision: str | None, device: str | torch.device) -> AbstractContextManager:
    """Context of forward passes in a precision of :data:`ldae.utils.ranges.PRECISIONS`; None leaves all as it is."""
    chosen = 'fp32' if precision is None else choose_precision(precision, device)
    return nullcontext() if chosen == 'fp32' else torch.autocast(torch.device(device).type, DTYPES[chosen])


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
