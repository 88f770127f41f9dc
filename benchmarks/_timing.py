# SPDX-License-Identifier: Apache-2.0
"""Measuring on a machine that others use too: in turn, by medians, and beside the machine's own limit."""

import ctypes
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

#: What the machine's limit is measured with: a product of square matrices of this size.
PRODUCT_SIZE = dict(cpu=1024, cuda=8192)


def clock() -> float:
    """Seconds of computing where one thread computes, so that others on the machine count less; else seconds."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def seconds(function: Callable[[], object], device: str = 'cpu') -> float:
    """How long a call takes, the device's part included."""
    on_cpu = device == 'cpu'
    if not on_cpu:
        torch.cuda.synchronize()
    start = clock() if on_cpu else time.perf_counter()
    function()
    if not on_cpu:
        torch.cuda.synchronize()
    return (clock() if on_cpu else time.perf_counter()) - start


def times_in_turn(
    functions: Mapping[str, Callable[[], object]], rounds: int, device: str = 'cpu', warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of each function in each round, called in turn after some rounds to warm up."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for i in range(warm_up + rounds):
        for name, function in functions.items():
            value = seconds(function, device)
            if i >= warm_up:
                times[name].append(value)
    return times


def medians(times: Mapping[str, list[float]]) -> dict[str, float]:
    """The median of each."""
    return {name: statistics.median(values) for name, values in times.items()}


def product(device: str, dtype: torch.dtype, size: int | None = None) -> tuple[Callable[[], object], float]:
    """A large matrix product as a function, and how many operations it does."""
    size = size or PRODUCT_SIZE.get(device.split(':')[0], 4096)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    count = 1 if device == 'cpu' else 50  # a GPU needs more than one to get going
    return lambda: [torch.mm(a, b, out=out) for _ in range(count)], 2.0 * size**3 * count


def peak_memory(function: Callable[[], object], device: str = 'cpu') -> float:
    """MiB that a call adds at its highest to what is held before it; NaN where it can't be known (a CPU without Linux)."""
    if device != 'cpu':
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    try:
        ctypes.CDLL('libc.so.6').malloc_trim(0)  # what is only kept for later use is not in use
        Path('/proc/self/clear_refs').write_text('5')  # the peak starts anew
        before = _status('VmRSS')
    except OSError:
        return float('nan')
    function()
    return (_status('VmHWM') - before) / 2**10


def _status(key: str) -> int:
    """A line of this process's status, in KiB."""
    text = Path('/proc/self/status').read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(key + ':'))


def machine(device: str = 'cpu') -> str:
    """What was measured on, for a table: processor, threads, torch, and how busy others keep it."""
    if device != 'cpu':
        return f'{torch.cuda.get_device_name()}, torch {torch.__version__}'
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.split(':')[1].strip() for line in lines if line.startswith('model name')), 'unknown CPU')
    load = os.getloadavg()[0]
    return f'{model}, {torch.get_num_threads()} of {os.cpu_count()} threads, torch {torch.__version__}, load {load:.1f}'
