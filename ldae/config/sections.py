# SPDX-License-Identifier: Apache-2.0
"""The parts of a config that have no ``type``: which keys they know, of which kind and range."""

import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from ldae.utils.errors import ConfigError, check_range, nearest, similar
from ldae.utils.ranges import check_value

from .reading import LOADERS

# Beside the Runner's own: what tools of mmengine, mmpretrain and ldae read from a config.
OTHER_KEYS = (
    *(
        'default_scope',
        'auto_scale_lr',
        'custom_imports',
        'runner_type',
        'launcher',
        'model_wrapper_cfg',
        'sync_bn',
    ),
    *('find_unused_parameters', 'compile', 'strategy', 'activation_checkpointing', 'efficient_conv_bn_eval'),
    *('tta_model', 'tta_pipeline', 'batch_arithmetic', 'scale', 'vis_backends', 'data_root'),
)
TOP_LEVEL = {*inspect.signature(Runner.__init__).parameters, *OTHER_KEYS} - {'self', 'cfg', 'optimizer'}
# How like a known key another must be to be taken for a mistake: a Python config has variables of any name.
LIKE = 0.88

OPTIONAL_INT = int | None
LOADER_KEYS = {
    **dict.fromkeys(inspect.signature(DataLoader.__init__).parameters, Any),
    **dict(dataset=Any, sampler=Any, batch_sampler=Any, collate_fn=Any, num_batch_per_epoch=OPTIONAL_INT),
    **dict(
        batch_size=OPTIONAL_INT, num_workers=int, persistent_workers=bool, pin_memory=bool, drop_last=bool
    ),
    **dict(prefetch_factor=OPTIONAL_INT, timeout=float, worker_init_fn=Any),
}
LOOP_KEYS = dict(
    by_epoch=bool, max_epochs=int, max_iters=int, val_begin=int, val_interval=int, dynamic_intervals=Any
)
CLIP_KEYS = dict.fromkeys(
    ('type', 'max_norm', 'norm_type', 'error_if_nonfinite', 'foreach', 'clip_value'), Any
)
PARAMWISE_KEYS = {
    **dict.fromkeys(('custom_keys', 'num_layers', 'layer_decay_rate', 'decay_rate', 'decay_type'), Any),
    **dict.fromkeys(('bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'dwconv_decay_mult'), float),
    **dict(flat_decay_mult=float, dcn_offset_lr_mult=float, bypass_duplicate=bool),
}
OPTIMIZER_KEYS = (
    'optimizer',
    'paramwise_cfg',
    'constructor',
    'clip_grad',
    'accumulative_counts',
    'loss_scale',
)
# Sections with a fixed set of keys, by their place.
SECTIONS = {
    **dict.fromkeys(LOADERS, LOADER_KEYS),
    'train_cfg': LOOP_KEYS,
    'val_cfg': dict(fp16=bool),
    'test_cfg': dict(fp16=bool),
    'optim_wrapper.clip_grad': CLIP_KEYS,
    'optim_wrapper.paramwise_cfg': PARAMWISE_KEYS,
    'env_cfg': dict(cudnn_benchmark=bool, mp_cfg=dict, dist_cfg=dict, resource_limit=OPTIONAL_INT),
    'env_cfg.mp_cfg': dict(mp_start_method=str, opencv_num_threads=int),
    'randomness': dict(seed=OPTIONAL_INT, diff_rank_seed=bool, deterministic=bool),
    'auto_scale_lr': dict(enable=bool, base_batch_size=OPTIONAL_INT),
}
KINDS_AT_THE_TOP = dict(
    resume=bool, load_from=str | None, work_dir=str | None, default_hooks=dict | None, custom_hooks=list | None,
    model=dict, log_level=str, optim_wrapper=dict | None, default_scope=str | None, launcher=str,
)  # fmt: skip
LEAST = {
    **{f'{loader}.batch_size': 1 for loader in LOADERS},
    **{f'{loader}.{key}': 0 for loader in LOADERS for key in ('num_workers', 'timeout')},
    **{f'{loader}.{key}': 1 for loader in LOADERS for key in ('prefetch_factor', 'num_batch_per_epoch')},
    **{f'train_cfg.{key}': 1 for key in ('max_epochs', 'max_iters', 'val_interval')},
    **{'train_cfg.val_begin': 0, 'optim_wrapper.clip_grad.max_norm': 0, 'randomness.seed': 0},
    **{'auto_scale_lr.base_batch_size': 1, 'env_cfg.mp_cfg.opencv_num_threads': 0},
}
LOG_LEVELS = ('CRITICAL', 'ERROR', 'WARNING', 'INFO', 'DEBUG', 'NOTSET')


def check_sections(cfg: Config) -> None:
    """Raise ConfigError for an unknown key, or for a value of the wrong kind or range, in a section without a type."""
    check_top_level(cfg)
    for where, known in SECTIONS.items():
        check_section(where, lookup(cfg, where), known)
    _check_optimizer(cfg)


def check_complete(cfg: Config) -> None:
    """Raise ConfigError for a section that lacks what it can't do without; of a config that is about to run."""
    for loader in LOADERS:
        section = cfg.get(loader)
        if isinstance(section, Mapping) and 'dataset' not in section:
            raise ConfigError(f'{loader} has no dataset: give it one, or set {loader}=None')
        for key in ('dataset', 'sampler', 'batch_sampler', 'collate_fn'):
            part = lookup(cfg, f'{loader}.{key}')
            if (
                part is not None and 'type' not in part
                if isinstance(part, Mapping)
                else isinstance(part, str | int)
            ):
                raise ConfigError(f'{loader}.{key}={part!r} names no component: give it a type')
    if any(cfg.get(loader) for loader in LOADERS) and 'type' not in (cfg.get('model') or ()):
        raise ConfigError('model names no component: give it a type')
    _check_hooks(cfg)
    _check_loop(cfg)


def lookup(cfg: Config, where: str) -> object:
    """The value at a dotted place, or None."""
    for key in where.split('.'):
        cfg = cfg.get(key) if isinstance(cfg, Mapping | Config) else None  # a Config is no Mapping
    return cfg


def check_top_level(cfg: Config) -> None:
    """A name that is nearly that of a setting is a mistake; any other may be a variable."""
    for key in cfg:
        match = similar(key, TOP_LEVEL - {'tta_pipeline'}, LIKE)  # configs name pipelines, `test_pipeline`
        if key not in TOP_LEVEL and match and not key.startswith('_'):
            raise ConfigError(f'{key} is no setting of a config{match}')
    for key, hint in KINDS_AT_THE_TOP.items():
        if key in cfg:
            check_value(key, cfg[key], hint)
    if str(cfg.get('log_level', 'INFO')).upper() not in LOG_LEVELS:
        raise ConfigError(f'log_level={cfg.log_level!r} is unknown: choose one of {list(LOG_LEVELS)}')


def check_spelling_of_type(where: str, node: Mapping) -> None:
    """Raise ConfigError for a dict without a type that has a word like it: what it builds is not known without."""
    if 'type' in node:
        return
    for key in node:
        if key.lower() in ('typ', 'tpe', 'tye') or sorted(key.lower()) == sorted('type'):
            raise ConfigError(f"{where} has no option {key!r}; did you mean 'type'?")


def check_section(where: str, section: object, known: Mapping[str, Any]) -> None:
    """One section: its keys, and the kinds and ranges of their values."""
    if section is None:
        return
    if not isinstance(section, Mapping):
        if where.startswith('val') and isinstance(section, list | tuple):
            return  # several, as mmengine allows
        raise ConfigError(f'{where}={section!r} is no dict')
    check_spelling_of_type(where, section)
    for key, value in section.items():
        if key.startswith('_') or 'type' in section and where.endswith('_cfg') and key not in known:
            continue  # a loop of one's own has options of its own, which its signature knows
        if key not in known:
            raise ConfigError(
                f'{where} has no option {key!r}{nearest(key, known) or "; it has " + ", ".join(sorted(known))}'
            )
        check_value(f'{where}.{key}', value, known[key])
        place = f'{where}.{key}'
        if place in LEAST and value is not None:
            check_range(place, value, LEAST[place], kind=int if known[key] in (int, OPTIONAL_INT) else float)


def _check_hooks(cfg: Config) -> None:
    default, custom = cfg.get('default_hooks') or {}, cfg.get('custom_hooks') or []
    named = {f'default_hooks.{key}': hook for key, hook in default.items()}
    for where, hook in [*named.items(), *((f'custom_hooks[{i}]', hook) for i, hook in enumerate(custom))]:
        if hook is None and where in named or not isinstance(hook, Mapping) and hasattr(hook, 'before_run'):
            continue
        if not isinstance(hook, Mapping):
            raise ConfigError(f'{where}={hook!r} is no dict with a type')
        if 'type' not in hook:
            name = where.rpartition('.')[2]
            hint = similar(name, [key for key in default if key != name], cutoff=0.7)
            raise ConfigError(f'{where} names no hook: give it a type{hint}')


def _check_optimizer(cfg: Config) -> None:
    wrapper = cfg.get('optim_wrapper')
    for key in wrapper or ():
        if hint := similar(key, OPTIMIZER_KEYS, 0.8):
            raise ConfigError(f'optim_wrapper has no option {key!r}{hint}')
    if not wrapper or 'constructor' in wrapper:
        return  # a constructor of one's own may make several
    optimizer = wrapper.get('optimizer')
    if not isinstance(optimizer, Mapping) or 'type' not in optimizer:
        raise ConfigError(
            f'optim_wrapper.optimizer={optimizer!r} is no dict with a type, such as dict(type="AdamW", lr=1e-4)'
        )
    if 'lr' in optimizer:
        check_range('optim_wrapper.optimizer.lr', optimizer['lr'], 0)
    if 'accumulative_counts' in wrapper:
        check_range('optim_wrapper.accumulative_counts', wrapper['accumulative_counts'], 1, kind=int)


def _check_loop(cfg: Config) -> None:
    loop = cfg.get('train_cfg')
    if not loop or 'type' in loop:
        return
    by_epoch, length = loop.get('by_epoch'), 'max_epochs' if loop.get('by_epoch') else 'max_iters'
    if by_epoch is None:
        raise ConfigError(
            'train_cfg has no by_epoch: set by_epoch=True with max_epochs, or False with max_iters'
        )
    if length not in loop:
        raise ConfigError(f'train_cfg.by_epoch={by_epoch} needs {length}')
