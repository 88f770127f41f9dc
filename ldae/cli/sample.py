# SPDX-License-Identifier: Apache-2.0
"""Sample images from a pre-trained l-DAE."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ldae.utils import ConfigError

from . import options as shared
from .probe import start_processes

WEIGHTS = ('.pth', '.pt', '.ckpt', '.safetensors')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of ``ldae sample``."""
    parser = shared.make_parser(
        'sample',
        'Sample images from a pre-trained l-DAE: single PNGs, a grid of them, and all in one .npz.\n'
        'An interrupted call goes on where it stopped; --num may grow. Image i depends on --seed and i alone.',
        'tools/sample.py work_dirs/t1_5_linear-schedule --num 64 --steps 50 --out samples',
    )
    add = parser.add_argument
    about = 'a checkpoint, the folder of a run, or a config, of which the checkpoint in work_dirs/ is taken'
    add('model', metavar='CONFIG_OR_CHECKPOINT', help=about)
    add('--checkpoint', metavar='FILE', help='of the config (the newest in work_dirs/CONFIG)')
    add('--out', required=True, metavar='DIR', help='folder to write to')
    add('--num', type=int, default=64, metavar='N', help='images (64)')
    add('--sampler', choices=shared.SAMPLERS, default='dpm++', help="one of diffusers' samplers (dpm++)")
    add('--steps', type=int, default=50, metavar='N', help='steps from noise to image (50)')
    add('--eta', type=float, default=0.0, metavar='SHARE', help="of DDPM's noise that ddim adds at each step (0)")
    add('--guidance', type=float, default=1.0, metavar='SCALE', help='of a class-conditional model: 1 is none (1)')
    about = 'guide so many channels of the latent map, the first ones; 3 is what DiT does (all)'
    add('--guidance-channels', type=int, metavar='N', help=about)
    add('--labels', type=int, nargs='+', metavar='CLASS', help='to be dealt out to the images in turn (all classes)')
    add('--seed', type=int, default=0, help='of the noise (0)')
    add('--batch-size', type=int, default=64, metavar='N', help='images at a time (64)')
    about = "folder of the images whose latents' moments are started from, where a schedule does not end in noise (the config's)"
    add('--data-root', metavar='DIR', help=about)
    shared.add_compute_options(parser, 'fp32')
    shared.add_ema(parser)
    shared.add_import(parser)
    add('--force', action='store_true', help='replace samples of other settings')
    shared.add_launcher_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``ldae sample`` and ``tools/sample.py``."""
    args = parse_args(argv)
    from mmengine.dist import is_main_process

    from ldae.generation import ImageSampler, sample
    from ldae.utils.device import use_device

    shared.check_arguments(args, sample, 'num', 'batch_size')
    shared.check_arguments(args, ImageSampler.__init__, 'steps', 'guidance', 'guidance_channels', 'eta', 'seed')
    shared.export_local_rank(args)
    start_processes(args.launcher, args.device)
    config, checkpoint = config_and_checkpoint(args.model, args.checkpoint)
    rest = ('model', 'checkpoint', 'device', 'imports', 'launcher', 'local_rank')
    options = {name: value for name, value in vars(args).items() if name not in rest}
    folder = sample(config, checkpoint=checkpoint, device=use_device(args.device), **options)
    if is_main_process():
        print(f'written: {folder}/grid.png, samples.npz, sampling.json and {args.num} images in images/')


def config_and_checkpoint(model: str, checkpoint: str | None) -> tuple[str | None, str]:
    """Config, where one is needed, and checkpoint of what a user named: a file of weights, the folder of a run, or a config."""
    from ldae.config import load_config
    from ldae.engine.resume.safe_checkpoint import latest_checkpoint

    is_config = not Path(model).is_dir() and Path(model).suffix not in WEIGHTS
    if is_config:
        load_config(model)  # to say first what is wrong with its name
    if checkpoint is not None:
        if not is_config:
            raise ConfigError(f'--checkpoint goes with a config, and {model} is no config: leave one of them out')
        return model, checkpoint
    run = Path('work_dirs', Path(model).stem) if is_config else Path(model)
    if not is_config and not run.is_dir():
        return None, model
    newest = latest_checkpoint(run)
    if newest is None:
        raise ConfigError(f'{run} holds no checkpoint: train{f" {model}" if is_config else ""} first, or name one')
    return None, str(newest)
