# SPDX-License-Identifier: Apache-2.0
"""The k-NN search against the bare matrix product of its size, which it cannot do without, and the memory it takes.

    python benchmarks/knn.py                       # 60 000 x 10 000 features of width 384, k = 10, 20, 100, 200
    python benchmarks/knn.py --device cuda

The two are called in turn, in the same process; the median of ``--runs`` counts. On a CPU, time is that of the process, which
other programs on the machine disturb less than wall-clock time. The product goes by the same blocks of test rows. Memory is
what the process (or the GPU) holds at most beyond the features.
"""

import argparse
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ldae.evaluation import knn_accuracies


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--train', type=int, default=60_000, help='training rows')
    parser.add_argument('--test', type=int, default=10_000, help='test rows')
    parser.add_argument('--width', type=int, default=384)
    parser.add_argument('--k', type=int, nargs='+', default=[10, 20, 100, 200])
    parser.add_argument('--runs', type=int, default=3)
    parser.add_argument('--device', default='cpu')
    return parser.parse_args()


def seconds(function: Callable[[], object], device: str) -> float:
    """Time of one call."""
    clock = time.process_time if device == 'cpu' else time.perf_counter
    start = clock()
    function()
    if device != 'cpu':
        torch.cuda.synchronize()
    return clock() - start


def extra_memory(function: Callable[[], object], device: str) -> float:
    """MiB that a call holds at most, beyond what is held before it."""
    if device != 'cpu':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    before, peak, done = resident(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    function()
    done.set()
    watcher.join()
    return max(peak[0], resident()) - before


def resident() -> float:
    """MiB of the process, as Linux counts them."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * 4096 / 2**20


def main() -> None:
    args = parse_args()
    torch.manual_seed(0)
    train_x, test_x = (torch.randn(n, args.width, device=args.device) for n in (args.train, args.test))
    train_y, test_y = (torch.randint(10, (n,), device=args.device) for n in (args.train, args.test))

    def search() -> None:
        knn_accuracies(train_x, train_y, test_x, test_y, args.k)

    def product() -> None:
        for rows in test_x.split(256):
            rows @ train_x.t()

    functions = {'ldae': search, 'bare product': product}
    memory = extra_memory(search, args.device)  # and a warm-up
    product()
    times = {name: [] for name in functions}
    for _ in range(args.runs):
        for name, function in functions.items():
            times[name].append(seconds(function, args.device))
    rates = {name: args.train * args.test / statistics.median(values) for name, values in times.items()}
    print(
        f'{args.train} x {args.test} features of width {args.width}, k = {args.k}, {args.device}, '
        f'{torch.get_num_threads()} threads, torch {torch.__version__}'
    )
    for name, rate in rates.items():
        print(f'{name:>14}: {rate / 1e6:10,.1f} M similarities/s   ldae / it = {rates["ldae"] / rate:.2f}')
    print(f'memory beyond the features, at most: {memory:.0f} MiB')


if __name__ == '__main__':
    main()
