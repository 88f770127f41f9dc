# SPDX-License-Identifier: Apache-2.0
"""Evaluate a checkpoint."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ldae.utils import ConfigError

from .options import add_config_options, add_launcher_options, export_local_rank, make_parser

if TYPE_CHECKING:
    from mmengine.config import Config


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of mmpretrain's test.py, and ``--data-root``."""
    parser = make_parser(
        'test',
        'Evaluate a checkpoint: accuracy of a classifier, loss and PSNR by noise level of l-DAE.',
        'tools/test.py configs/ldae/vit-b_pca.py work_dirs/vit-b_pca/epoch_400.pth --out metrics.json --out-item metrics',
    )
    add_config_options(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', metavar='DIR', help='folder for logs (work_dirs/CONFIG)')
    parser.add_argument('--out', metavar='FILE', help='write results to a .pkl, .json or .yml file')
    parser.add_argument('--out-item', choices=['metrics', 'pred'], help='what --out holds (predictions)')
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', metavar='DIR', help='write pictures of predictions')
    parser.add_argument('--interval', type=int, default=1, help='draw every so many images')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that a window stays')
    parser.add_argument('--no-pin-memory', action='store_true', help='pin_memory=False in all data loaders')
    parser.add_argument('--tta', action='store_true', help='average over a flip, or what tta_pipeline says')
    add_launcher_options(parser)
    args = parser.parse_args(argv)
    if args.out_item and not args.out:
        parser.error('--out-item needs --out')
    return args


def use_validation_data(cfg: 'Config') -> None:
    """Pre-training configs name no test set: theirs is the validation set."""
    if cfg.get('test_dataloader') is not None:
        return
    if cfg.get('val_dataloader') is None:
        raise ConfigError(
            f'{cfg.filename} has neither test_dataloader nor val_dataloader: nothing to evaluate on'
        )
    cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator
    cfg.test_cfg = {key: value for key, value in (cfg.val_cfg or {}).items() if key == 'fp16'}


def show_predictions(cfg: 'Config', args: argparse.Namespace) -> None:
    """Switch mmpretrain's visualization hook on where pictures are asked for."""
    if not (args.show or args.show_dir):
        return
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise ConfigError('--show needs default_hooks.visualization in the config')
    hook.update(
        enable=True, show=args.show, wait_time=args.wait_time, out_dir=args.show_dir, interval=args.interval
    )


def augment_at_test_time(cfg: 'Config') -> None:
    """Average scores over the image and its mirror image, unless the config says what else."""
    from mmengine.config import ConfigDict

    pipeline = cfg.test_dataloader.dataset.pipeline
    if 'tta_pipeline' not in cfg:
        flips = [dict(type='RandomFlip', prob=prob) for prob in (1.0, 0.0)]
        cfg.tta_pipeline = [*pipeline[:-1], dict(type='TestTimeAug', transforms=[flips, [pipeline[-1]]])]
    model = cfg.get('tta_model') or dict(type='mmpretrain.AverageClsScoreTTA')
    cfg.model = ConfigDict(**model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def prepare_test(args: argparse.Namespace) -> 'Config':
    """The config that the Runner tests with: nothing of training is built."""
    from ldae.config import load_config
    from ldae.launch import prepare

    cfg = load_config(args.config, args.cfg_options, args.scale)
    use_validation_data(cfg)
    cfg.train_dataloader = cfg.train_cfg = cfg.optim_wrapper = cfg.param_scheduler = None
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.load_from, cfg.resume = args.checkpoint, False
    if args.amp:
        cfg.test_cfg.fp16 = True
        args.amp = False  # there is no optimizer to wrap
    show_predictions(cfg, args)
    if args.tta:
        augment_at_test_time(cfg)
    return prepare(cfg, args)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``ldae test`` and ``tools/test.py``."""
    args = parse_args(argv)
    import mmengine
    from mmengine.evaluator import DumpResults

    from ldae.launch import build_runner

    export_local_rank(args)
    runner = build_runner(prepare_test(args))
    if args.out and args.out_item != 'metrics':
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
    metrics = runner.test()
    if args.out and args.out_item == 'metrics':
        mmengine.dump(metrics, args.out)
