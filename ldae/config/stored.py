# SPDX-License-Identifier: Apache-2.0
"""The config that a file of data holds: read as data, never run, and naming registered components only."""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import mmengine.registry
import mmpretrain.registry
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import Registry

import ldae.registry
from ldae.utils.errors import ConfigError
from ldae.utils.signatures import signature_of

from .reading import LOADERS, walk_dicts

MAX_CHARACTERS = 1 << 22
#: Keys whose value is the name of a component, wherever they stand.
NAMES = ('type', 'constructor', 'runner_type')
#: In these, ``type`` isn't the name of a component: how gradients are clipped, and the layers that LoRA looks for.
OTHER_TYPES = ('clip_grad', 'targets')
#: Options of a model's parts by which they would fetch weights.
WEIGHTS = ('pretrained', 'checkpoint', 'checkpoint_path')
ADDRESS = re.compile(r'://|^(?:hf[-_]hub|local-dir):')
# Components that read, or download, what a name says.
FETCHING = re.compile(r'multimodal|hugging_?face|models\.utils\.tokenizer')
# A model of more is nobody's, and would take forever, or all memory, to be built before its weights are compared.
LARGEST, DEEPEST, DEPTHS = 1 << 24, 1000, re.compile('layers|depth|blocks|stages')
# mmengine writes keys between quotes as they are when it dumps a config.
UNSAFE_KEY = re.compile(r'[\'"\\\n\r]')
ADVICE = 'name the config'


def read_stored_config(text: Any, where: object) -> Config:
    """The config in ``meta['cfg']`` of a checkpoint: weights, addresses and imports that it names are left out of it.
    Raises ConfigError if there is none, if it holds more than data, or names what isn't a registered component."""
    if not isinstance(text, str) or not text.strip():
        raise ConfigError(f'{where} does not say by which config it was trained: {ADVICE}')
    try:
        values = parse_config(text)
        for key in (key for node in walk_dicts(values) for key in node if isinstance(key, str)):
            if UNSAFE_KEY.search(key):
                raise ValueError(f'{key!r} is not the name of a setting')
        cfg = Config(values, filename=None)
    except (SyntaxError, ValueError, TypeError, KeyError, AttributeError, RecursionError, MemoryError) as error:
        why = ' '.join(str(error).split()) or type(error).__name__
        raise ConfigError(f'{where}: the config that it holds cannot be read as data ({why}): {ADVICE}') from error
    _check_names(cfg, where)
    _follow_nothing(cfg, where)
    return cfg


def parse_config(text: str) -> dict[str, Any]:
    """A config's text as mmengine dumps it (``name = dict(...)``), read as data: nothing in it is run. Raises
    ValueError if it holds anything but assignments of constants, lists, tuples and dicts."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f'it has {len(text):,} characters')
    values = {}
    for statement in ast.parse(text).body:
        if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
            raise ValueError(f'line {statement.lineno} is not an assignment to a name')
        values[statement.targets[0].id] = _value(statement.value)
    return values


def _value(node: ast.expr) -> Any:
    """The value of a literal, in which ``dict(a=1)`` is one too."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        entries = [_value(argument) for argument in node.args]
        if len(entries) > 1 or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError(f'line {node.lineno} calls dict with more than names and a dict')
        given = {keyword.arg: _value(keyword.value) for keyword in node.keywords}
        # `**{...}` has no name.
        spread = given.pop(None, {})
        return {**(entries[0] if entries else {}), **spread, **given}
    if isinstance(node, ast.Dict):
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values, strict=True) if key}
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    if isinstance(node, ast.Name) and node.id in ('inf', 'nan'):
        return float(node.id)
    return ast.literal_eval(node)


def _check_names(cfg: Config, where: object) -> None:
    """Raise unless all that is built is registered: mmengine calls any function that it can import by a name that isn't."""
    registered = registered_components()
    scopes = {name.partition('.')[0] for name in registered if '.' in name}
    for place, key, name in _names('', cfg.to_dict()):
        if key in ('default_scope', '_scope_'):
            known = name is None or isinstance(name, str) and name in scopes
        else:
            # Also by the path of a component in a module that is imported already, as mmengine writes names of classes.
            module, _, last = str(name).rpartition('.')
            found = vars(sys.modules[module]).get(last) if module in sys.modules else None
            known = isinstance(name, str) and (
                name in registered or any(found is component for component in registered.get(last, ()))
            )
        if not known:
            imports = _imports(cfg)
            hint = f'it asks to import {", ".join(imports)}: with --import MODULE, if you trust it' if imports else ''
            hint = hint or f'--import MODULE imports what registers it; or {ADVICE}'
            raise ConfigError(
                f'{where}: {place} of its config, {name!r}, is not the name of a registered component; {hint}'
            )


def registered_components() -> dict[str, list]:
    """Names, with their scope and without -> the components of all registries of that name."""
    modules = (mmengine.registry, mmpretrain.registry, ldae.registry)
    own = [value for module in modules for value in vars(module).values() if isinstance(value, Registry)]
    registries = list({id(root): root for root in (each._get_root_registry() for each in own)}.values())
    found: dict[str, list] = defaultdict(list)
    for registry in registries:  # which grows
        registry.import_from_location()
        registries += registry._children.values()
        for name, component in registry._module_dict.items():
            found[name].append(component)
            found[f'{registry.scope}.{name}'].append(component)
    return found


def _names(place: str, node: Any) -> Iterator[tuple[str, str, Any]]:
    """(place, key, value) of each name of a component or scope in a nest of dicts and lists."""
    if isinstance(node, list | tuple):
        for i, child in enumerate(node):
            yield from _names(f'{place}[{i}]', child)
    if not isinstance(node, dict):
        return
    for key, child in node.items():
        inner = f'{place}.{key}' if place else str(key)
        if key in NAMES and not isinstance(child, dict) or key in ('default_scope', '_scope_'):
            yield inner, key, child
        elif key not in OTHER_TYPES:
            yield from _names(inner, child)


def _imports(cfg: Config) -> list[str]:
    """The modules that a config wants to have imported, and that aren't."""
    asked = cfg.get('custom_imports')
    names = asked.get('imports') if isinstance(asked, dict) else asked
    names = [names] if isinstance(names, str) else names if isinstance(names, list | tuple) else []
    return [str(name) for name in names if str(name) not in sys.modules]


def _follow_nothing(cfg: Config, where: object) -> None:
    """Leave out what would fetch weights, images or code: weights are those of the checkpoint."""
    if imports := _imports(cfg):
        print_log(f'{where}: custom_imports of its config, {", ".join(imports)}, not imported: --import MODULE does it')
        cfg.pop('custom_imports')
    registered = registered_components()
    for section in ('model', 'data_preprocessor'):
        for node in walk_dicts(cfg.get(section)):
            inits = node.get('init_cfg') if isinstance(node.get('init_cfg'), list | tuple) else [node.get('init_cfg')]
            if any(isinstance(i, dict) and str(i.get('type')).rpartition('.')[2] == 'Pretrained' for i in inits):
                node['init_cfg'] = None
            for key in WEIGHTS:
                if node.get(key) and isinstance(node[key], str | bool):
                    node[key] = False if node[key] is True else None
            check_size(node, f'{where}: {section} of its config')
            components = registered.get(node.get('type') if isinstance(node.get('type'), str) else None, ())
            fetches = any(FETCHING.search(getattr(component, '__module__', '')) for component in components)
            address = next((v for v in node.values() if isinstance(v, str) and ADDRESS.search(v)), None)
            if fetches or address:
                raise ConfigError(f'{where}: {section} of its config fetches {address or node["type"]}: {ADVICE}')
    for name in LOADERS:
        for node in walk_dicts(cfg.get(name)):
            components = registered.get(node.get('type') if isinstance(node.get('type'), str) else None, ())
            if any('download' in signature_of(component).hints for component in components):
                node['download'] = False


def check_size(node: dict, where: str) -> None:
    """Raise ConfigError if a number of a model's settings would take forever, or all memory, to build."""
    for key, value in node.items():
        limit = DEEPEST if DEPTHS.search(str(key)) else LARGEST
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, int) and abs(number) > limit:
                raise ConfigError(f'{where} has {key}={str(number)[:20]}, which is out of range: {ADVICE}')
