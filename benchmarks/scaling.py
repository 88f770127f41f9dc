# SPDX-License-Identifier: Apache-2.0
"""Images per second of a pre-training config on 1, 2, ... processes, each with one thread (or one GPU).

    python benchmarks/scaling.py                                   # the demo's config, 1 and 2 processes, gloo on a CPU
    python benchmarks/scaling.py --config ldae::ldae/vit-b_pca.py --data-root DIR --processes 1 8 --batch-size 256

Each process gets the same batch size, so perfect scaling multiplies the images per second. As many runs of one process each
at the same time, which share nothing but the machine, are the peer: what they reach together is what the machine can give. Runs take turns,
and the median of the rounds counts; the first steps of a run don't.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _timing import machine
from mmengine.hooks import Hook

APART = 'processes that do not talk'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', default='ldae::ldae/demo_fashion-mnist.py')
    parser.add_argument('--data-root')
    parser.add_argument('--processes', type=int, nargs='+', default=[1, 2])
    parser.add_argument('--batch-size', type=int, default=64, help='of each process')
    parser.add_argument('--steps', type=int, default=40)
    parser.add_argument('--warm-up', type=int, default=10, help='steps that do not count')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--rank-file', help=argparse.SUPPRESS)  # what a process that was started here writes
    return parser.parse_args()


class StopwatchHook(Hook):
    """Stop the run after some steps, and write images per second of this process to a file."""

    priority = 'LOWEST'

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.start = args, 0.0

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        step = runner.iter + 1
        if step in (self.args.warm_up, self.args.warm_up + self.args.steps):
            outputs['loss'].item()  # the device is done
        if step == self.args.warm_up:
            self.start = time.perf_counter()
        if step == self.args.warm_up + self.args.steps:
            rate = self.args.batch_size * self.args.steps / (time.perf_counter() - self.start)
            Path(self.args.rank_file).write_text(str(rate))
            os._exit(0)  # the epoch would go on


def train(args: argparse.Namespace) -> None:
    """One process of a run."""
    import torch

    from ldae.config import load_config
    from ldae.launch import LaunchOptions, build_runner, prepare

    torch.set_num_threads(1)
    cfg = load_config(args.config)
    cfg.train_dataloader.batch_size, cfg.auto_scale_lr, cfg.log_level = args.batch_size, None, 'ERROR'
    launcher = 'pytorch' if int(os.environ['WORLD_SIZE']) > 1 else 'none'
    options = LaunchOptions(work_dir=str(Path(args.rank_file).parent), data_root=args.data_root, launcher=launcher)
    runner = build_runner(prepare(cfg, options))
    runner.register_hook(StopwatchHook(args))
    runner.train()


def start(
    args: argparse.Namespace, folder: Path, rank: int, world: int, port: int, own: dict[str, str] | None = None
) -> subprocess.Popen:
    """Start this program as one process of a run."""
    variables = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=world, MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    env = dict(os.environ, OMP_NUM_THREADS='1', **{key: str(value) for key, value in variables.items()}, **(own or {}))
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, *sys.argv[1:], '--rank-file', str(folder / f'rate_{rank}')]
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)


def rate_of(folders: list[Path], processes: list[subprocess.Popen]) -> float:
    """Wait for processes; their images per second together."""
    codes = [process.wait() for process in processes]  # all of them, also after one has failed
    if any(codes):
        raise SystemExit('error: a run failed, see above')
    return sum(float(path.read_text()) for folder in folders for path in folder.glob('rate_*'))


def together(args: argparse.Namespace, folder: Path, world: int) -> float:
    """Images per second of one run of several processes."""
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        port = server.getsockname()[1]
    return rate_of([folder], [start(args, folder, rank, world, port) for rank in range(world)])


def apart(args: argparse.Namespace, folder: Path, count: int) -> float:
    """Images per second of several runs of one process each, on a GPU each where there are GPUs."""
    folders = [folder / str(i) for i in range(count)]
    devices = os.environ.get('CUDA_VISIBLE_DEVICES', ','.join(map(str, range(count)))).split(',')
    own = [dict(CUDA_VISIBLE_DEVICES=devices[i % len(devices)]) for i in range(count)]
    return rate_of(folders, [start(args, part, 0, 1, 0, own[i]) for i, part in enumerate(folders)])


def main() -> None:
    args = parse_args()
    if args.rank_file:
        return train(args)
    rates: dict[str, list[float]] = {}
    for _ in range(args.rounds):
        for world in args.processes:
            for name, run in ((f'{world} processes', together), (f'{world} {APART}', apart)):
                if world > 1 or run is together:
                    with tempfile.TemporaryDirectory() as folder:
                        rates.setdefault(name, []).append(run(args, Path(folder), world))
    print(f'{args.config}, batch {args.batch_size} a process, {machine()}')
    middle = {name: statistics.median(values) for name, values in rates.items()}
    for world in args.processes:
        ours = middle[f'{world} processes']
        peer = middle.get(f'{world} {APART}', ours)
        single = world * middle.get('1 processes', ours)
        print(
            f'{world} processes: {ours:9.1f} images/s, {ours / single:.2f} of {world} times one process; '
            f'{world} {APART}: {peer:9.1f}, ldae / it = {ours / peer:.2f}'
        )


if __name__ == '__main__':
    main()
