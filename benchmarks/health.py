# SPDX-License-Identifier: Apache-2.0
"""What the health signals and the guard against NaN cost a training step of l-DAE.

    python benchmarks/health.py                                                        # ViT-S size, CPU float32
    python benchmarks/health.py --size base --batch-size 256 --device cuda --bf16 --steps 50

Printed are the medians of a step without hooks, of what HealthHook does in each step and of its report, and of what
SkipNonFiniteHook does in each step, and from these their shares of the training time. On a GPU both are watched for
reading from the device, which neither may.
"""

import argparse
import logging
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace

import torch
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope

from ldae.engine import AutocastOptimWrapper, HealthHook, SkipNonFiniteHook
from ldae.registry import MODELS

SIZES = dict(
    tiny=dict(embed_dims=192, num_layers=2, num_heads=3, feedforward_channels=768),
    small=dict(embed_dims=384, num_layers=12, num_heads=6, feedforward_channels=1536),
    base=dict(embed_dims=768, num_layers=12, num_heads=12, feedforward_channels=3072),
    large=dict(embed_dims=1024, num_layers=24, num_heads=16, feedforward_channels=4096),
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', choices=list(SIZES), default='small')
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--img-size', type=int, default=256)
    parser.add_argument('--num-images', type=int, default=2048, help='whose features are taken')
    parser.add_argument('--interval', type=int, default=500)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--bf16', action='store_true', help='bfloat16 autocast')
    parser.add_argument('--steps', type=int, default=3)
    return parser.parse_args()


def make_runner(args: argparse.Namespace) -> SimpleNamespace:
    """What the hook needs of a Runner."""
    init_default_scope('mmpretrain')
    cfg = dict(
        type='ldae.LDAE',
        data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[127.5] * 3, std=[60.0] * 3),
        tokenizer=dict(type='ldae.PatchPCATokenizer', img_size=args.img_size),
        noiser=dict(type='ldae.GaussianNoiser'),
        backbone=dict(type='ldae.LDAEViT', arch=SIZES[args.size]),
    )
    model = MODELS.build(cfg).to(args.device)
    model.tokenizer.fit([torch.randn(32, 3, args.img_size, args.img_size, device=args.device)])
    params = [param for param in model.parameters() if param.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=1e-4, weight_decay=0, fused=True)
    wrapper = (AutocastOptimWrapper if args.bf16 else OptimWrapper)(optimizer=optimizer)
    return SimpleNamespace(
        model=model,
        optim_wrapper=wrapper,
        iter=0,
        max_iters=args.interval,
        message_hub=MessageHub.get_instance('health'),
        visualizer=SimpleNamespace(add_scalars=lambda *_, **__: None),
        logger=logging.getLogger('health'),
        seed=0,
    )


def seconds(function: Callable[[], None], device: str) -> float:
    """How long a call takes, the device's part included."""
    start = time.perf_counter()
    function()
    if device != 'cpu':
        torch.cuda.synchronize()
    return time.perf_counter() - start


def watching(runner: SimpleNamespace, batch: dict, args: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """A step, HealthHook's part in each and its report after a step, as functions."""
    hook, watched = HealthHook(args.interval, args.num_images), SyncDetector(args.device)
    hook.before_train(runner)

    def step() -> None:
        runner.model.train_step(batch, runner.optim_wrapper)

    def per_step() -> None:
        with watched:
            hook.before_train_iter(runner, 0, batch)
            hook.after_train_iter(runner, 0, data_batch=batch)

    def report() -> None:
        runner.iter = args.interval - 1
        hook.before_train_iter(runner, 0, batch)  # the next update takes the norm
        step()
        hook._batches.extend([batch] * -(-args.num_images // args.batch_size))
        hook.after_train_iter(runner, 0, data_batch=batch)
        runner.iter = 0

    return dict(step=step, per_step=per_step, report=report)


def guarding(runner: SimpleNamespace, batch: dict, args: argparse.Namespace) -> Callable[[], None]:
    """SkipNonFiniteHook's part in a step, on gradients that are there."""
    hook, watched = SkipNonFiniteHook(), SyncDetector(args.device)

    def guard() -> None:
        with watched:
            hook.before_train_iter(runner, 0, batch)
            hook._guards[0].before_step()
            hook.after_train_iter(runner, 0, data_batch=batch)

    def with_gradients() -> None:
        hook.before_train(runner)
        for _ in range(10):
            guard()
        hook.after_train(runner)

    return with_gradients


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Median seconds of a step, of HealthHook's part in a step and its report, and of SkipNonFiniteHook's part."""
    runner = make_runner(args)
    pixels = torch.randint(256, (args.batch_size, 3, args.img_size, args.img_size), dtype=torch.uint8)
    batch = dict(inputs=pixels, data_samples=None)
    parts = watching(runner, batch, args)
    times = dict(step=[], per_step=[], report=[], guard=[])
    for i in range(args.steps + 1):
        taken = {name: seconds(part, args.device) for name, part in parts.items()}
        for param in runner.model.parameters():
            param.grad = torch.ones_like(param) if param.requires_grad else None
        taken['guard'] = seconds(guarding(runner, batch, args), args.device) / 10
        runner.optim_wrapper.zero_grad()
        for name, value in taken.items() if i else ():  # the first round warms up
            times[name].append(value)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return medians | dict(report=medians['report'] - medians['step'])


class SyncDetector:
    """Raise where the hook waits for the device; on a CPU there is nothing to wait for."""

    def __init__(self, device: str) -> None:
        self.on = device != 'cpu'

    def __enter__(self) -> None:
        if self.on:
            torch.cuda.set_sync_debug_mode('error')

    def __exit__(self, *_) -> None:
        if self.on:
            torch.cuda.set_sync_debug_mode('default')


def main() -> None:
    args = parse_args()
    torch.manual_seed(0)
    times = measure(args)
    name = torch.cuda.get_device_name() if args.device == 'cuda' else f'cpu, {torch.get_num_threads()} threads'
    precision = 'bf16' if args.bf16 else 'fp32'
    print(f'{args.size}, batch {args.batch_size}, {args.img_size} px, {precision}, {name}, torch {torch.__version__}')
    print(f'{"a step of ldae":>32}: {times["step"] * 1e3:10.2f} ms')
    print(f'{"HealthHook in a step":>32}: {times["per_step"] * 1e3:10.3f} ms')
    print(f'{f"its report on {args.num_images} images":>32}: {times["report"] * 1e3:10.2f} ms')
    print(f'{"SkipNonFiniteHook in a step":>32}: {times["guard"] * 1e3:10.3f} ms')
    health = (times['per_step'] + times['report'] / args.interval) / times['step']
    guard = times['guard'] / times['step']
    print(f'share of the training time: health {health:.3%} at interval {args.interval}, guard {guard:.3%}')


if __name__ == '__main__':
    main()
