# SPDX-License-Identifier: Apache-2.0
"""From a pre-trained checkpoint to its score, by a benchmark's config."""

import json
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process

from ldae.apis.models import load_config_of
from ldae.config import load_config
from ldae.config.scale import find_scale, is_benchmark, read_scale
from ldae.utils import ConfigError
from ldae.utils.checkpoints import read_checkpoint
from ldae.utils.files import atomic_write_text

from .build import build_runner
from .prepare import LaunchOptions, prepare

#: Stand for the config of that kind for the checkpoint's method and size.
KINDS = ('linear', 'finetune', 'linear_1pct', 'linear_10pct')
RESULT_FILE = 'benchmark.json'
TOP1 = 'accuracy/top1'
CHECKPOINT = 'model.backbone.init_cfg.checkpoint'
METHODS = {'ldae.LDAE': 'ldae', 'LDAE': 'ldae', 'MAE': 'mae'}
SIZES = {(768, 12): 'b', (1024, 12): 'half-l', (1024, 24): 'l'}
NAMES = {'b': 'b', 'base': 'b', 'half-large': 'half-l', 'l': 'l', 'large': 'l'}


def benchmark(
    config: str,
    checkpoint: str,
    scale: str | None = None,
    cfg_options: dict | None = None,
    force: bool = False,
    **options: Any,
) -> dict:
    """Train the classifier of a benchmark on a pre-trained encoder: final and best top-1 accuracy in percent of the test
    images, and what they are of. The same is written to ``benchmark.json`` in the work directory.

    Args:
        config: A file, or one of :data:`KINDS`: the config that fits the checkpoint.
        checkpoint: Of a pre-training of l-DAE or MAE.
        scale: None takes the scale that the checkpoint was trained at.
        force: Replace the result of an earlier run.
        options: Of :class:`LaunchOptions`.

    Raises:
        ConfigError: A config that isn't a benchmark, a checkpoint that doesn't fit it, or a result that is there already.
    """
    name, cfg = benchmark_config(config, checkpoint, scale, cfg_options)
    cfg = prepare(cfg, LaunchOptions(**options))
    path = Path(cfg.work_dir) / RESULT_FILE
    if path.exists() and not force:
        raise ConfigError(f'{path} exists: pass --force to replace it, or another --work-dir')
    runner = build_runner(cfg)
    runner.train()
    history = runner.message_hub.log_scalars.get(f'val/{TOP1}')
    if history is None:
        raise ConfigError(f'{name} has measured no {TOP1}: its val_evaluator must be Accuracy')
    values = [float(value) for value in history.data[0]]
    result = dict(top1=values[-1], best_top1=max(values), epochs=runner.epoch, config=name)
    result |= dict(checkpoint=checkpoint, scale=runner.cfg.get('scale'), seed=runner.seed)
    result['batch'] = runner.cfg.get('batch_arithmetic')
    if is_main_process():
        atomic_write_text(path, json.dumps(result, indent=2) + '\n')
    return result | dict(file=str(path))


def benchmark_config(
    name: str, checkpoint: str, scale: str | None = None, cfg_options: dict | None = None
) -> tuple[str, Config]:
    """Name and content of the config with the checkpoint in it, at the checkpoint's scale unless another is named."""
    content = read_checkpoint(checkpoint)
    pretrained = _stored_config(checkpoint, content, needed=name in KINDS)
    if name in KINDS:
        name = f'ldae::benchmarks/{matching(pretrained, checkpoint)}_{name}.py'
    full = load_config(name)
    if not is_benchmark(full):
        raise ConfigError(
            f'{name} is not a benchmark of a pre-trained encoder: take {_suggestion(full)} '
            f'(or just {" or ".join(KINDS[:2])})'
        )
    if not any(key.startswith('backbone.') for key in content['state_dict']):
        raise ConfigError(f'{checkpoint} has no encoder (backbone.*): name a checkpoint of pre-training')
    if pretrained is not None:
        kind = pretrained.get('model', {}).get('type')
        wanted = 'ldae' if full.model.backbone.type.endswith('LDAEViT') else 'mae'
        if METHODS.get(kind, wanted) != wanted:
            raise ConfigError(f'{name} does not fit {checkpoint}, which holds {kind}: take {_suggestion(pretrained)}')
        if scale is None and 'scale' not in full:
            scale = pretrained.get('scale')
    return name, load_config(name, {CHECKPOINT: checkpoint, **(cfg_options or {})}, scale)


def _stored_config(checkpoint: str, content: dict, needed: bool) -> Config | None:
    if not needed and not (content.get('meta') or {}).get('cfg'):
        return None
    try:
        return load_config_of(checkpoint)
    except ConfigError:
        if needed:
            raise
        return None


def matching(pretrained: Config, where: str) -> str:
    """The first part of the names of the benchmarks of a pre-training config, such as ``'ldae_vit-b'``.

    Raises:
        ConfigError: It isn't a pre-training of l-DAE or MAE, or is of a size that has no benchmark.
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


def _size(arch: str | dict | None, pretrained: Config) -> str | None:
    if isinstance(arch, str):
        return NAMES.get(arch)
    if not arch:
        return None
    if 'scale' in pretrained:
        archs = read_scale(find_scale(pretrained.scale)).scale.archs
        return next((NAMES[name] for name, small in archs.items() if dict(small) == dict(arch)), None)
    return SIZES.get((arch.get('embed_dims'), arch.get('num_layers')))


def _suggestion(cfg: Config) -> str:
    """The benchmarks of a pre-training config, by name."""
    try:
        name = matching(cfg, str(cfg.filename))
    except ConfigError:
        return 'one of configs/benchmarks'
    return ' or '.join(f'configs/benchmarks/{name}_{kind}.py' for kind in KINDS[:2])
