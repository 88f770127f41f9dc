# SPDX-License-Identifier: Apache-2.0
"""Checks of a config before any data are read: each raises one line."""

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path

import mmengine.registry
import mmpretrain.registry
from mmengine.config import Config
from mmengine.registry import Registry

import ldae.registry  # noqa: F401  (its registries are children of the root from here on)
from ldae.datasets.roots import is_source, parse_root
from ldae.utils.errors import ConfigError
from ldae.utils.signatures import check_arguments, is_ours

from .reading import LOADERS, walk_dicts
from .sections import check_complete, check_sections, check_spelling_of_type

# Which registries a `type` may come from, by the key of the config under which it stands; the first that fits counts.
# Where several are named, components of one kind hold components of another (a backbone its initialisers).
SLOTS = {
    'model': ('MODELS', 'WEIGHT_INITIALIZERS', 'BATCH_AUGMENTS', 'TASK_UTILS', 'TOKENIZER'),
    'model_wrapper_cfg': ('MODEL_WRAPPERS',),
    'data_preprocessor': ('MODELS', 'BATCH_AUGMENTS'),
    'optim_wrapper': ('OPTIM_WRAPPERS',),
    'param_scheduler': ('PARAM_SCHEDULERS',),
    **dict.fromkeys(('train_cfg', 'val_cfg', 'test_cfg'), ('LOOPS',)),
    **dict.fromkeys(('default_hooks', 'custom_hooks'), ('HOOKS',)),
    **dict.fromkeys(('val_evaluator', 'test_evaluator'), ('METRICS', 'EVALUATOR')),
    'visualizer': ('VISUALIZERS', 'VISBACKENDS'),
}
ROOTS = (*LOADERS, *SLOTS)
# Slots that stand inside others.
INNER = {
    'dataset': ('DATASETS',),
    'pipeline': ('TRANSFORMS',),
    **dict.fromkeys(('sampler', 'batch_sampler'), ('DATA_SAMPLERS',)),
    'collate_fn': ('FUNCTIONS',),
    'optimizer': ('OPTIMIZERS',),
}
SLOTS |= INNER
# mmpretrain's LoRA model calls names of layers `type`, and its augmentations take options out of their policies; a noise
# schedule is a function, which the noiser looks up.
NOT_COMPONENTS = ('targets', 'policies', 'schedule', 'clip_grad')
NESTING = ('model', 'pipeline', 'dataset', 'optim_wrapper', 'visualizer')  # whose components hold others of their kind


def check_config(cfg: Config) -> None:
    """Raise ConfigError for the first unknown component or option, missing folder or missing checkpoint."""
    check_components(cfg)
    check_complete(cfg)
    check_data_roots(cfg)
    check_weights(cfg)


def check_components(cfg: Config) -> None:
    """Every key and ``type``, and the options of each component: what needs no look at the disk."""
    check_sections(cfg)
    for where, component, node, slot in components_of(cfg):
        check_arguments(where, component, node, slot)
        check_collate(cfg, where, component)
        if 'BaseDataPreprocessor' in [cls.__name__ for cls in getattr(component, '__mro__', ())]:
            mean, std = node.get('mean'), node.get('std')
            if (mean is None) != (std is None) or mean is not None and len(mean) != len(std):
                raise ConfigError(f'{where}: mean={mean} and std={std} must have one value a channel each')


def check_collate(cfg: Config, where: str, component: Callable) -> None:
    """Check that a batch which a data set of ldae puts together isn't put together once more."""
    loader, _, inner = where.partition('.')
    if inner != 'dataset' or not is_ours(component) or not hasattr(component, '__getitems__'):
        return
    collate = (cfg[loader].get('collate_fn') or {}).get('type', 'pseudo_collate')
    if collate in ('pseudo_collate', 'default_collate'):
        raise ConfigError(
            f"{where} serves whole batches: set {loader}.collate_fn.type='ldae.batch_collate', not '{collate}'"
        )


def components_of(cfg: Config) -> Iterator[tuple[str, Callable, dict, str]]:
    """(place, what it builds, options, slot) of each component that is given by its registered name."""
    scope = cfg.get('default_scope') or 'mmengine'
    for where, node, slot in (found for root in ROOTS for found in typed_nodes(cfg.get(root), root, root)):
        name = node['type']
        if not isinstance(name, str):
            continue
        registries = [_registry(kind, scope) for kind in SLOTS[slot]]
        component = next(filter(None, (_resolve(registry, name) for registry in registries)), None)
        if component is None:
            hint = next(filter(None, (nearest_type(registry, name) for registry in registries)), '')
            if 'default_scope' not in cfg:
                hint = "; the config sets no default_scope, which is 'mmpretrain' for its components and ours"
            raise ConfigError(f"{where}.type='{name}' is not a registered {registries[0].name}{hint}")
        yield where, component, node, slot


def typed_nodes(node: object, where: str, slot: str | None) -> Iterator[tuple[str, dict, str]]:
    """(place, dict, slot) of each dict with a ``type``, under a slot that is known."""
    if isinstance(node, list | tuple):
        for i, child in enumerate(node):
            yield from typed_nodes(child, f'{where}[{i}]', slot)
    if not isinstance(node, dict):
        return
    if slot in SLOTS:
        check_spelling_of_type(where, node)
    if 'type' in node and slot in SLOTS:
        yield where, node, slot
    for key, child in node.items():
        if key in NOT_COMPONENTS:
            continue
        inner = key if key in INNER and slot != 'model' else slot
        # What stands beside a hook's or metric's options is of a kind unknown here.
        is_known = 'type' not in node or slot in NESTING or inner != slot
        yield from typed_nodes(child, f'{where}.{key}', inner if is_known else None)


def _registry(kind: str, scope: str) -> Registry:
    """The registry in which a Runner with this default scope looks a kind of component up."""
    for module in (mmengine.registry, mmpretrain.registry):
        if hasattr(module, kind):
            registry = getattr(module, kind)
            scoped = registry._get_root_registry()._search_child(scope)
            return registry if scoped is None else scoped  # not `or`: a registry without modules is falsy
    raise KeyError(kind)


def _resolve(registry: Registry, name: str) -> Callable | None:
    try:
        return registry.get(name)
    except RuntimeError:
        return None


def nearest_type(registry: Registry, name: str) -> str:
    """A hint with the registered name most like ``name``, our own prefixed by their scope, or an empty string."""
    known, registries = {}, [registry._get_root_registry()]
    for current in registries:  # which grows
        current.import_from_location()
        registries += current._children.values()
        prefix = 'ldae.' if current.scope == 'ldae' else ''
        known |= {short: prefix + short for short in current._module_dict}
    match = get_close_matches(name.rpartition('.')[2], known, n=1)
    return f"; did you mean '{known[match[0]]}'?" if match else ''


def check_data_roots(cfg: Config) -> None:
    """Local folders named by ``data_root`` must exist, unless the data set may download them; what isn't a folder, only data
    sets of files read."""
    for name in LOADERS:
        for node in walk_dicts(cfg.get(name)):
            root = node.get('data_root')
            if is_source(root) or '::' in str(root) and not Path(root).is_dir():
                kind = parse_root(root).kind
                if str(node.get('type')).rpartition('.')[2] != 'ImageFolder':
                    raise ConfigError(
                        f'{kind}:: is read by ldae.ImageFolder, and {name} has {node.get("type")}, which reads its own files: take'
                        ' a config or --scale of image files (as --scale image-folder)'
                    )
                continue
            if not root or '://' in str(root) or node.get('download'):
                continue
            path = Path(root).expanduser()
            if not path.is_dir():
                how = 'is a file, not a folder' if path.exists() else 'does not exist'
                raise ConfigError(
                    f'data folder {str(root)!r} of {name} {how}: pass --data-root DIR, or set data_root in the config'
                )


def check_weights(cfg: Config) -> None:
    """Checkpoints to resume or initialise from must exist."""
    named = [(cfg.get('load_from'), 'load_from')]
    for node in walk_dicts(cfg.get('model')):
        if not str(node.get('type')).endswith(
            'Tokenizer'
        ):  # which takes folders too, and says itself what makes its file
            named += [(node.get(key), f'model: {node.get("type", "")} {key}') for key in ('checkpoint', 'pretrained')]
    for path, where in named:
        # An empty name is CheckLoadedHook's, which knows whether one is needed.
        if not path or not isinstance(path, str | Path) or '://' in str(path):
            continue
        file = Path(path).expanduser()
        if not file.is_file():
            how = 'is not a file' if file.exists() else 'does not exist'
            how = 'is a folder: name a file in it' if file.is_dir() else how
            raise ConfigError(f'checkpoint {str(path)!r} ({where}) {how}')
