# SPDX-License-Identifier: Apache-2.0
"""The parts of a config that have no ``type``: their keys, types and ranges, as the signatures of what reads them say."""

import ast
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from mmengine.config import Config
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner, TestLoop, ValLoop
from mmengine.utils.dl_utils import set_multi_processing
from mmpretrain.engine import LearningRateDecayOptimWrapperConstructor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.utils.data import DataLoader

from ldae.utils import Choice, ConfigError, NaturalInt, PositiveInt, Range
from ldae.utils.errors import nearest
from ldae.utils.ranges import check_value, hints_of
from ldae.utils.signatures import CLOSE, SLOT_OPTIONS

from .reading import LOADERS

# Beside the Runner's own: what tools of mmengine, mmpretrain and ldae read from a config.
OTHER_SETTINGS = (
    'default_scope', 'auto_scale_lr', 'custom_imports', 'runner_type', 'launcher', 'model_wrapper_cfg', 'sync_bn', 'compile',
    'find_unused_parameters', 'strategy', 'activation_checkpointing', 'efficient_conv_bn_eval', 'tta_model', 'tta_pipeline',
    'batch_arithmetic', 'small_batch', 'chosen_precision', 'fewer_workers', 'made_with', 'scale', 'vis_backends', 'data_root',
)  # fmt: skip
LOG_LEVELS = ('CRITICAL', 'ERROR', 'WARNING', 'INFO', 'DEBUG', 'NOTSET')
SIMILAR = 0.88  # how like a setting a name must be to be a mistake: a Python config has variables of any name
NUMBER = Annotated[float, Range(0)]


# What the Runner itself gives, so that a config can't.
GIVEN = {'self', 'runner', 'dataloader', 'evaluator', 'parameters', 'distributed', 'cfg'}


def _options(*functions: Callable, **ranges: Any) -> dict[str, Any]:
    """Options of the functions that a section is given to, and their annotations, those of ``ranges`` in place of theirs."""
    known: dict[str, Any] = {}
    for function in functions:
        known |= dict.fromkeys(inspect.signature(function).parameters, Any) | hints_of(function)
    return {name: hint for name, hint in known.items() if name not in GIVEN} | ranges


def _read_keys(section: str, *classes: type) -> dict[str, Any]:
    """The keys that classes get out of a dict by name, of which no signature tells, and the types of their defaults."""
    source = ''.join(map(inspect.getsource, classes))
    known: dict[str, Any] = {}
    for key, default in re.findall(rf"{section}\.get\('(\w+)'(?:, ([^)]*))?\)", source):
        value = ast.literal_eval(default or 'None')
        known[key] = float if key.endswith('_mult') else Any if value is None else type(value)
    return known


TOP_HINTS = _options(
    Runner.__init__,
    work_dir=str | None,
    default_scope=str | None,
    log_level=Annotated[str, Choice(LOG_LEVELS)],
    val_dataloader=dict | list | None,  # loops of mmpretrain validate on several
)
TOP_LEVEL = {*TOP_HINTS, *OTHER_SETTINGS}
SOME = dict.fromkeys(('batch_size', 'prefetch_factor', 'num_batch_per_epoch'), PositiveInt | None)
LENGTH = dict.fromkeys(('max_epochs', 'max_iters', 'val_interval'), PositiveInt)
PARAMWISE = (DefaultOptimWrapperConstructor, LearningRateDecayOptimWrapperConstructor)
# Sections with a fixed set of keys, by their place.
SECTIONS = {
    **dict.fromkeys(LOADERS, _options(DataLoader.__init__, num_workers=NaturalInt, timeout=NUMBER, **SOME)),
    'train_cfg': _options(EpochBasedTrainLoop, IterBasedTrainLoop, by_epoch=bool, val_begin=NaturalInt, **LENGTH),
    'val_cfg': _options(ValLoop),
    'test_cfg': _options(TestLoop),
    'optim_wrapper.clip_grad': _options(clip_grad_norm_, clip_grad_value_, type=str, max_norm=NUMBER),
    'optim_wrapper.paramwise_cfg': _read_keys('paramwise_cfg', *PARAMWISE),
    'env_cfg': _read_keys('env_cfg', Runner) | dict(cudnn_benchmark=bool),
    'env_cfg.mp_cfg': _options(set_multi_processing, opencv_num_threads=NaturalInt),
    'randomness': _options(Runner.set_randomness, seed=NaturalInt | None),
    'auto_scale_lr': dict(enable=bool, base_batch_size=PositiveInt | None),
}
#: Settings of mmcv 1 and mmcls, which mmengine passes over in silence, and where they stand today.
OLD_SETTINGS = dict(
    data='train_dataloader, val_dataloader and test_dataloader',
    optimizer='optim_wrapper.optimizer',
    optimizer_config='optim_wrapper (clip_grad, accumulative_counts)',
    lr_config='param_scheduler',
    runner='train_cfg (by_epoch, max_epochs or max_iters)',
    total_epochs='train_cfg.max_epochs',
    total_iters='train_cfg.max_iters',
    workflow='train_cfg.val_interval',
    evaluation='val_evaluator, with train_cfg.val_interval',
    checkpoint_config='default_hooks.checkpoint',
    log_config='default_hooks.logger and visualizer',
    resume_from='load_from, with resume=True',
    dist_params='env_cfg.dist_cfg',
)
OPTIMIZER_KEYS = {*inspect.signature(OptimWrapper).parameters, *SLOT_OPTIONS['optim_wrapper'], 'loss_scale'}


def check_sections(cfg: Config) -> None:
    """Raise ConfigError for an unknown key, or for a value of the wrong type or range, in a section without a type."""
    _check_top_level(cfg)
    _check_counting(cfg)
    for where, known in SECTIONS.items():
        _check_section(where, lookup(cfg, where), known)
    wrapper = cfg.get('optim_wrapper') or {}
    for key in wrapper:
        if hint := nearest(key, OPTIMIZER_KEYS, CLOSE):
            raise ConfigError(f'optim_wrapper has no option {key!r}{hint}')
    if wrapper and 'constructor' not in wrapper:  # one of one's own may make several
        optimizer = wrapper.get('optimizer')
        _check_component('optim_wrapper.optimizer', optimizer, '; such as dict(type="AdamW", lr=1e-4)')
        check_value('optim_wrapper.optimizer.lr', optimizer.get('lr', 0), NUMBER)
        check_value('optim_wrapper.accumulative_counts', wrapper.get('accumulative_counts', 1), PositiveInt)


def check_complete(cfg: Config) -> None:
    """Raise ConfigError for a section that lacks what it can't do without; of a config that is about to run."""
    for loader in (name for name in LOADERS if isinstance(cfg.get(name), Mapping)):
        if 'dataset' not in cfg[loader]:
            raise ConfigError(f'{loader} has no dataset: give it one, or set {loader}=None')
        for key in ('dataset', 'sampler', 'batch_sampler', 'collate_fn'):
            part = cfg[loader].get(key)
            if isinstance(part, Mapping | str | int):
                _check_component(f'{loader}.{key}', part)
        steps = cfg[loader].dataset.get('pipeline') if isinstance(cfg[loader].dataset, Mapping) else None
        if steps is not None and not isinstance(steps, list | tuple):
            raise ConfigError(f'{loader}.dataset.pipeline must be a list of steps, got {str(steps)[:80]!r}')
        for i, step in enumerate(steps or ()):
            _check_component(f'{loader}.dataset.pipeline[{i}]', step)
    if any(cfg.get(loader) for loader in LOADERS):
        _check_component('model', cfg.get('model'))
    default = {key: hook for key, hook in (cfg.get('default_hooks') or {}).items() if hook is not None}
    for key, hook in default.items():
        hint = nearest(key, default.keys() - {key}, cutoff=0.7)
        _check_component(f'default_hooks.{key}', hook, hint)
    for i, hook in enumerate(cfg.get('custom_hooks') or ()):
        _check_component(f'custom_hooks[{i}]', hook)
    loop = cfg.get('train_cfg')
    if loop and 'type' not in loop:
        if 'by_epoch' not in loop:
            raise ConfigError('train_cfg has no by_epoch: set by_epoch=True with max_epochs, or False with max_iters')
        length = 'max_epochs' if loop.by_epoch else 'max_iters'
        if length not in loop:
            raise ConfigError(f'train_cfg.by_epoch={loop.by_epoch} needs {length}')


def _check_component(where: str, part: object, hint: str = '') -> None:
    """Raise ConfigError unless ``part`` is a dict that names a component, or one that is built already."""
    is_plain = part is None or isinstance(part, str | int | float | list | tuple)
    if is_plain or isinstance(part, Mapping) and 'type' not in part:
        raise ConfigError(f'{where} must be a dict with a type, got {part!r}{hint}')


def lookup(cfg: object, where: str) -> object:
    """The value at a dotted place of nested dicts, or None."""
    for key in where.split('.'):
        cfg = cfg.get(key) if isinstance(cfg, Mapping | Config) else None  # a Config is not a Mapping
    return cfg


def check_spelling_of_type(where: str, node: Mapping) -> None:
    """Raise ConfigError for a dict without a type that has a word like it: what it builds is not known without."""
    for key in node if 'type' not in node else ():
        if key.lower() in ('typ', 'tpe', 'tye') or sorted(key.lower()) == sorted('type'):
            raise ConfigError(f"{where} has no option {key!r}; did you mean 'type'?")


def _check_top_level(cfg: Config) -> None:
    """A name that is nearly that of a setting is a mistake; any other may be a variable."""
    for key in cfg:
        if key in OLD_SETTINGS and not _is_used(key, cfg):
            raise ConfigError(
                f'{key} is a setting of old versions, which nothing reads: today it is {OLD_SETTINGS[key]}'
            )
        match = nearest(key, TOP_LEVEL - {'tta_pipeline'}, SIMILAR)  # configs name pipelines, `test_pipeline`
        if key not in TOP_LEVEL and match and not key.startswith('_'):
            raise ConfigError(f'{key} is not a setting of a config{match}')
        if key in TOP_HINTS:
            check_value(key, cfg[key], TOP_HINTS[key])


def _is_used(name: str, cfg: Config) -> bool:
    """Whether a variable's value stands in a setting."""
    rest = [cfg[key] for key in cfg if key in TOP_LEVEL]
    while rest:
        node = rest.pop()
        if node == cfg[name]:
            return True
        rest += node.values() if isinstance(node, Mapping) else node if isinstance(node, list | tuple) else ()
    return False


def _check_counting(cfg: Config) -> None:
    """Raise ConfigError for what counts epochs where training counts steps: all of them are one epoch there."""
    loop = cfg.get('train_cfg') or {}
    if loop.get('by_epoch', True) and not str(loop.get('type')).endswith(('IterLoop', 'IterBasedTrainLoop')):
        return
    several = cfg.get('param_scheduler') or []
    schedulers = several if isinstance(several, list) else [several]
    hook = (cfg.get('default_hooks') or {}).get('checkpoint')
    parts = {f'param_scheduler[{i}]': p for i, p in enumerate(schedulers) if not p.get('convert_to_iter_based')}
    if hook and hook.get('interval', -1) > 0 and not hook.get('step_interval'):
        parts['default_hooks.checkpoint'] = hook
    for where, part in parts.items():
        if 'type' in part and part.get('by_epoch', True):
            raise ConfigError(
                f'{where} counts epochs, and train_cfg steps: set by_epoch=False there, and its lengths in steps'
            )


def _check_section(where: str, section: object, known: Mapping[str, Any]) -> None:
    if section is None or where.startswith('val') and isinstance(section, list | tuple):
        return  # mmengine allows several to validate on
    check_value(where, section, dict)
    check_spelling_of_type(where, section)
    for key, value in section.items():
        if key.startswith('_') or key == 'type':
            continue
        if key in known:
            check_value(f'{where}.{key}', value, known[key])
        elif not ('type' in section and where.endswith('_cfg')):  # whose own signature knows
            hint = nearest(key, known) or f'; it has {", ".join(sorted(known))}'
            raise ConfigError(f'{where} has no option {key!r}{hint}')
