# SPDX-License-Identifier: Apache-2.0
"""From a pre-trained checkpoint to its score, by a benchmark's config."""

import argparse
from collections.abc import Sequence

from . import options as shared
from .probe import start_processes


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """``config checkpoint`` and options of tools/train.py."""
    parser = shared.make_parser(
        'benchmark',
        'Train the classifier that a benchmark config describes on a pre-trained encoder, and print its top-1 accuracy: '
        'linear probe, fine-tuning, a low-shot probe, or k-NN, which trains nothing. CONFIG is one of linear, finetune, '
        'linear_1pct, linear_10pct and knn, fitted to the checkpoint and to the labelled images; or a file.',
        'ldae benchmark linear work_dirs/mine/epoch_100.pth --data-root photos\n'
        '  tools/benchmark.sh linear work_dirs/vit-b_pca/epoch_400.pth 8 --data-root data/imagenet',
    )
    shared.add_config_options(parser)
    add = parser.add_argument
    add('checkpoint', help='checkpoint of a pre-training run')
    shared.add_import(parser)
    shared.add_ema(parser)
    add('--work-dir', metavar='DIR', help='folder for logs and the result (in work_dirs, by config or checkpoint)')
    add('--epochs', type=int, metavar='N', help="at least 2, instead of the config's")
    add('--resume', action='store_const', const='auto', help='continue from the last checkpoint of the work dir')
    shared.add_compute_options(parser, amp=True)
    add('--keep-batch', action='store_true', help="accumulate batches up to the config's batch")
    add('--force', action='store_true', help='replace the benchmark.json of an earlier run')
    shared.add_launcher_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``ldae benchmark``, ``tools/benchmark.py`` and ``tools/benchmark.sh``."""
    args = parse_args(argv)
    from mmengine.dist import is_main_process

    from ldae.launch import benchmark

    options = shared.launch_options(args)
    if args.config == 'knn':
        start_processes(args.launcher, args.device)
    choices = args.scale, args.cfg_options, args.force, args.epochs, args.ema
    result = benchmark(args.config, args.checkpoint, *choices, **options)
    if is_main_process():
        length = f' after {result["epochs"]} epochs, best {result["best_top1"]:.2f}%' if result['epochs'] else ''
        on = f'{result["config"]} on {result["checkpoint"]}, {result["file"]}'
        print(f'top-1 {result["top1"]:.2f}%{length}: {on}', flush=True)
