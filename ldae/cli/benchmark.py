# SPDX-License-Identifier: Apache-2.0
"""From a pre-trained checkpoint to its score, by a benchmark's config."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ldae.utils import ConfigError

from .options import add_config_options, add_launcher_options, export_local_rank, make_parser

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner

#: What CONFIG may be instead of a file: the config of that kind for the checkpoint's method and size.
KINDS = ('linear', 'finetune', 'linear_1pct', 'linear_10pct')
RESULT_FILE = 'benchmark.json'
TOP1 = 'accuracy/top1'
CHECKPOINT = 'model.backbone.init_cfg.checkpoint'
METHODS = {'ldae.LDAE': 'ldae', 'LDAE': 'ldae', 'MAE': 'mae'}
SIZES = {(768, 12): 'b', (1024, 12): 'half-l', (1024, 24): 'l'}
NAMES = {'b': 'b', 'base': 'b', 'half-large': 'half-l', 'l': 'l', 'large': 'l'}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """``config checkpoint`` and options of tools/train.py."""
    parser = make_parser(
        'benchmark',
        'Train the classifier that a benchmark config describes on a pre-trained encoder, and print its top-1 accuracy: '
        'linear probe, fine-tuning, or a low-shot probe. CONFIG is a file, or one of '
        f'{", ".join(KINDS)}: then the config that fits the checkpoint is taken.',
        'tools/benchmark.sh linear work_dirs/vit-b_pca/epoch_400.pth 8 --data-root data/imagenet',
    )
    add_config_options(parser)
    parser.add_argument('checkpoint', help='checkpoint of a pre-training run')
    parser.add_argument('--work-dir', metavar='DIR', help='folder for logs and the result (work_dirs/CONFIG)')
    parser.add_argument(
        '--resume', action='store_true', help='continue from the last checkpoint of the work dir'
    )
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast, on any device')
    parser.add_argument(
        '--keep-batch', action='store_true', help="accumulate batches up to the config's batch"
    )
    parser.add_argument('--force', action='store_true', help=f'replace the {RESULT_FILE} of an earlier run')
    add_launcher_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``ldae benchmark``, ``tools/benchmark.py`` and ``tools/benchmark.sh``."""
    args = parse_args(argv)
    from mmengine.dist import is_main_process

    from ldae.launch import LaunchOptions, build_runner, prepare
    from ldae.utils.files import atomic_write_text

    export_local_rank(args)
    options = LaunchOptions.of(args)
    options.resume = 'auto' if args.resume else None
    cfg = prepare(benchmark_config(args), options)
    path = Path(cfg.work_dir) / RESULT_FILE
    if path.exists() and not args.force:
        raise ConfigError(f'{path} exists: pass --force to replace it, or another --work-dir')
    runner = build_runner(cfg)
    runner.train()
    result = scores(runner, args)
    if is_main_process():
        atomic_write_text(path, json.dumps(result, indent=2) + '\n')
        print(
            f'top-1 {result["top1"]:.2f}% after {result["epochs"]} epochs, best {result["best_top1"]:.2f}%: '
            f'{result["config"]} on {result["checkpoint"]}, {path}',
            flush=True,
        )


def benchmark_config(args: argparse.Namespace) -> 'Config':
    """The config with the checkpoint in it, at the checkpoint's scale unless another is named.

    Raises:
        ConfigError: A config that is no benchmark, or a checkpoint that isn't one or doesn't say what it is where that
            is needed.
    """
    from ldae.config import load_config
    from ldae.config.scale import is_benchmark
    from ldae.utils.checkpoints import read_checkpoint

    content = read_checkpoint(args.checkpoint)
    pretrained = _stored_config(args.checkpoint, content, needed=args.config in KINDS)
    name = args.config
    if name in KINDS:
        name = f'ldae::benchmarks/{matching(pretrained, args.checkpoint)}_{name}.py'
    full = load_config(name)
    if not is_benchmark(full):
        raise ConfigError(
            f'{name} is no benchmark of a pre-trained encoder: take {_suggestion(full)} (or just {" or ".join(KINDS[:2])})'
        )
    if not any(key.startswith('backbone.') for key in content['state_dict']):
        raise ConfigError(f'{args.checkpoint} has no encoder (backbone.*): name a checkpoint of pre-training')
    if pretrained is not None:
        _check_method(full, pretrained, args)
    scale = args.scale or (
        pretrained.get('scale') if pretrained is not None and 'scale' not in full else None
    )
    cfg = load_config(name, {CHECKPOINT: args.checkpoint, **(args.cfg_options or {})}, scale)
    args.config = name
    return cfg


def _check_method(cfg: 'Config', pretrained: 'Config', args: argparse.Namespace) -> None:
    kind = pretrained.get('model', {}).get('type')
    wanted = 'ldae' if cfg.model.backbone.type.endswith('LDAEViT') else 'mae'
    if METHODS.get(kind, wanted) != wanted:
        raise ConfigError(
            f'{args.config} does not fit {args.checkpoint}, which holds {kind}: take {_suggestion(pretrained)}'
        )


def _stored_config(checkpoint: str, content: dict, needed: bool) -> 'Config | None':
    from ldae.apis.models import load_config_of

    if not needed and not (content.get('meta') or {}).get('cfg'):
        return None
    try:
        return load_config_of(checkpoint)
    except ConfigError:
        if needed:
            raise
        return None


def matching(pretrained: 'Config', where: str) -> str:
    """The first part of the names of the benchmarks of a pre-training config, such as ``'ldae_vit-b'``.

    Raises:
        ConfigError: It is no pre-training of l-DAE or MAE, or of a size that has no benchmark.
    """
    model = pretrained.get('model', {})
    backbone = model.get('backbone') or {}
    method = METHODS.get(model.get('type'))
    size = _size(backbone.get('arch'), pretrained)
    if method is None or size is None:
        raise ConfigError(
            f'{where} holds a {model.get("type")} of size {backbone.get("arch")}, for which there is no benchmark: '
            'write a config that inherits one of configs/benchmarks'
        )
    at_256 = method == 'mae' and (size == 'half-l' or backbone.get('img_size', 224) == 256)
    return f'{method}_vit-{size}{"_256" if at_256 else ""}'


def _size(arch: str | dict | None, pretrained: 'Config') -> str | None:
    if isinstance(arch, str):
        return NAMES.get(arch)
    if not arch:
        return None
    if 'scale' in pretrained:
        from ldae.config.scale import find_scale, read_scale

        archs = read_scale(find_scale(pretrained.scale)).scale.archs
        return next((NAMES[name] for name, small in archs.items() if dict(small) == dict(arch)), None)
    return SIZES.get((arch.get('embed_dims'), arch.get('num_layers')))


def _suggestion(cfg: 'Config') -> str:
    """The benchmarks of a pre-training config, by name."""
    try:
        name = matching(cfg, str(cfg.filename))
    except ConfigError:
        return 'one of configs/benchmarks'
    return ' or '.join(f'configs/benchmarks/{name}_{kind}.py' for kind in KINDS[:2])


def scores(runner: 'Runner', args: argparse.Namespace) -> dict:
    """Final and best top-1 in percent of the test images, and what they are of."""
    history = runner.message_hub.log_scalars.get(f'val/{TOP1}')
    if history is None:
        raise ConfigError(f'{args.config} has measured no {TOP1}: its val_evaluator must be Accuracy')
    values = [float(value) for value in history.data[0]]
    return dict(
        top1=values[-1],
        best_top1=max(values),
        epochs=runner.epoch,
        config=args.config,
        checkpoint=args.checkpoint,
        scale=runner.cfg.get('scale'),
        seed=runner.seed,
        batch=runner.cfg.get('batch_arithmetic'),
    )
