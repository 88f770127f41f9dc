# SPDX-License-Identifier: Apache-2.0
"""Train what a config describes."""

import argparse
from collections.abc import Sequence

from ldae.utils.ranges import LOG_LEVELS

from . import options as shared
from .options import add_compute_options, add_config_options, add_image_options, image_options, make_parser


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of mmpretrain's train.py, and ``--data-root`` and ``--keep-batch``."""
    parser = make_parser(
        'train',
        'Pre-train, fine-tune or probe what a config describes.',
        'tools/train.py configs/ldae/vit-b_pca.py --data-root data/imagenet --amp\n'
        '  tools/dist_train.sh configs/ldae/vit-b_pca.py 8',
    )
    add_config_options(parser)
    add = parser.add_argument
    add('--budget', metavar='TIME', help='time for training with --scale auto: 90s, 30m, 2h (30m)')
    add('--work-dir', metavar='DIR', help='folder for logs and checkpoints (work_dirs/[SCALE/]CONFIG)')
    about = 'continue from a checkpoint, or the latest of a folder; without one named, from the latest in the work dir'
    add('--resume', nargs='?', const='auto', metavar='CHECKPOINT', help=about)
    about = 'with --resume: lr, optimizer options and schedules of the config, at the step where the checkpoint is'
    add('--new-schedule', action='store_true', help=about)
    add_compute_options(parser, amp=True)
    about = 'compiled blocks, bf16 where the device has it, TF32, images resized by torch: docs/performance.md'
    add('--fast', action='store_true', help=about)
    add('--no-validate', action='store_true', help='do not evaluate during training')
    add_recipe = parser.add_argument_group(
        'recipe', 'Warm-up, schedule, checkpoints and what is read follow.'
    ).add_argument
    add_recipe('--epochs', type=int, metavar='N', help="length of the run (the config's)")
    about = 'images a process and step; lr goes with its square root'
    add_recipe('--batch-size', type=int, metavar='N', help=about)
    add_recipe('--lr', type=float, metavar='LR', help='as it is, whatever the batch')
    add_recipe('--model', metavar='NAME', help='encoder: tiny, small, base, half-large or large')
    add_image_options(parser)
    batch = parser.add_mutually_exclusive_group()
    about = 'scale lr by processes x batch_size x accumulated batches over auto_scale_lr.base_batch_size'
    batch.add_argument('--auto-scale-lr', action='store_true', help=about)
    about = 'accumulate batches up to auto_scale_lr.base_batch_size instead of scaling lr'
    batch.add_argument('--keep-batch', action='store_true', help=about)
    add('--no-pin-memory', action='store_true', help='pin_memory=False in all data loaders')
    add('--no-persistent-workers', action='store_true', help='persistent_workers=False in all data loaders')
    add('--pictures', action='store_true', help='draw the loss, and denoised images, into WORK_DIR/pictures')
    names = 'tensorboard, wandb, mlflow, clearml, neptune, dvclive or aim'
    add('--vis', nargs='+', default=(), metavar='NAME', help=f'show curves and pictures also in {names}, if installed')
    about = 'of the console: DEBUG shows what the log file has, WARNING only what matters (INFO)'
    add('--log-level', choices=LOG_LEVELS, help=about)
    shared.add_launcher_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``ldae train`` and ``tools/train.py``."""
    args = parse_args(argv)
    from ldae.launch import train
    from ldae.launch.training import RECIPE

    recipe = {name: getattr(args, name) for name in RECIPE} | image_options(args)
    train(args.config, args.cfg_options, args.scale, args.budget, **recipe, **shared.launch_options(args))
