# SPDX-License-Identifier: Apache-2.0
"""What the Runner and all hooks of a pre-training config add to a bare loop with the same model, data and optimizer.

    python benchmarks/runner_overhead.py                              # the demo's config and sizes of steps around 30 ms
    python benchmarks/runner_overhead.py --batch-sizes 8 64 --steps 400
    python benchmarks/runner_overhead.py --width 768 --layers 12 --batch-sizes 64   # on a GPU, where there is one

Both loops read images from the same data loader and train copies of one model. Their steps are taken in turn; with one
thread, time is the processor's. The bare loop does what each training loop must: read, normalise, loss, backward, learning
rate, optimizer. The difference is then put down to hooks, each timed inside of the Runner's steps; the rest is mmengine's.
"""

import argparse
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from types import MethodType

import torch
from _timing import clock, machine, times_in_turn
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.optim.lr_scheduler import CosineAnnealingLR

from ldae.config import load_config
from ldae.launch import LaunchOptions, build_runner, prepare
from ldae.registry import MODELS

STAGES = ('before_train_iter', 'after_train_iter')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', default='ldae::ldae/demo_fashion-mnist.py')
    parser.add_argument('--width', type=int, help="of the encoder, instead of the config's")
    parser.add_argument('--layers', type=int, help="instead of the config's")
    parser.add_argument('--batch-sizes', type=int, nargs='+', default=[8, 64])
    parser.add_argument('--steps', type=int, default=300)
    return parser.parse_args()


def start_runner(args: argparse.Namespace, batch_size: int, work_dir: str) -> Runner:
    """A Runner as ``tools/train.py`` builds it, which stands before its first step."""
    cfg = load_config(args.config)
    cfg.train_dataloader.batch_size, cfg.train_cfg.max_epochs, cfg.log_level = batch_size, 1000, 'ERROR'
    if args.width:
        layers = args.layers or cfg.model.backbone.arch.num_layers
        arch = dict(num_layers=layers, num_heads=args.width // 64, feedforward_channels=4 * args.width)
        cfg.model.backbone.arch = dict(arch, embed_dims=args.width)
    cfg.param_scheduler = dict(type='CosineAnnealingLR', T_max=1000, by_epoch=True, convert_to_iter_based=True)
    cfg.auto_scale_lr = None
    runner = build_runner(prepare(cfg, LaunchOptions(work_dir=work_dir)))
    # What Runner.train does before its first step.
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
    runner.call_hook('before_run')
    runner._init_model_weights()
    runner.optim_wrapper.initialize_count_status(runner.model, 0, runner.train_loop.max_iters)
    for stage in ('before_train', 'before_train_epoch'):
        runner.call_hook(stage)
    runner.model.train()
    return runner


def batches(runner: Runner) -> Iterator[tuple[int, dict]]:
    """Batches without end, with their number in the epoch."""
    while True:
        yield from enumerate(runner.train_dataloader)


def runner_step(runner: Runner) -> Callable[[], None]:
    """A step of the Runner's loop."""
    source = batches(runner)
    return lambda: runner.train_loop.run_iter(*next(source))


def bare_step(runner: Runner) -> Callable[[], None]:
    """The same step of a loop that one would write by hand, on copies."""
    model, source = MODELS.build(runner.cfg.model), batches(runner)
    model.load_state_dict(runner.model.state_dict())
    model.to(next(runner.model.parameters()).device).train()
    params = [param for param in model.parameters() if param.requires_grad]
    group = runner.optim_wrapper.optimizer.param_groups[0]
    options = {key: group[key] for key in ('lr', 'betas', 'weight_decay')}
    optimizer = torch.optim.AdamW(params, fused=True, **options)
    scheduler = CosineAnnealingLR(optimizer, T_max=1000 * len(runner.train_dataloader))
    dtype = getattr(runner.optim_wrapper, 'cast_dtype', None)
    device = params[0].device.type

    def step() -> None:
        data = model.data_preprocessor(next(source)[1], True)
        with torch.autocast(device, dtype, enabled=dtype is not None):
            loss = model.loss(data['inputs'])['loss']
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()

    return step


def watch_hooks(runner: Runner) -> dict[str, list[float]]:
    """From now on, collect the seconds that each hook takes before and after a step."""
    spent: dict[str, list[float]] = defaultdict(list)

    def call_hook(self: Runner, stage: str, **arguments) -> None:
        for hook in self._hooks:
            start = clock()
            getattr(hook, stage, lambda *_, **__: None)(self, **arguments)
            if stage in STAGES and getattr(type(hook), stage) is not getattr(Hook, stage):
                spent[type(hook).__name__].append(clock() - start)

    runner.call_hook = MethodType(call_hook, runner)
    return spent


def main() -> None:
    args = parse_args()
    print(machine())
    for batch_size in args.batch_sizes:
        with tempfile.TemporaryDirectory() as work_dir:
            runner = start_runner(args, batch_size, work_dir)
            device = next(runner.model.parameters()).device.type
            steps = {'ldae': runner_step(runner), 'bare loop': bare_step(runner)}
            times = times_in_turn(steps, args.steps, device, warm_up=5)
            spent = watch_hooks(runner)
            for _ in range(args.steps):
                steps['ldae']()
            report(times, spent, batch_size, args.steps)


def report(times: dict[str, list[float]], spent: dict[str, list[float]], batch_size: int, steps: int) -> None:
    """Print both loops' steps and what each hook takes of one."""
    ours, bare = (statistics.median(values) for values in times.values())
    # A line in the log every so many steps is in the mean only; the median is there to tell it from noise.
    mean = statistics.fmean(times['ldae']) / statistics.fmean(times['bare loop']) - 1
    print(
        f'batch {batch_size}: ldae {ours * 1e3:.2f} ms, bare loop {bare * 1e3:.2f} ms, ldae / it = {ours / bare:.3f}'
        f'   overhead of a step {ours / bare - 1:6.2%}, of all steps {mean:6.2%}'
    )
    for name, values in sorted(spent.items(), key=lambda item: -sum(item[1])):
        # A hook that does nothing in most steps is known by its sum.
        print(f'{name:>28}: {sum(values) / steps * 1e3:8.3f} ms a step   {sum(values) / steps / bare:6.2%}')


if __name__ == '__main__':
    main()
