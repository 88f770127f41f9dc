# SPDX-License-Identifier: Apache-2.0
"""Reading a config, and finding one's way in it."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from mmengine.config import Config

from ldae.utils.errors import ConfigError

from .paths import find_config

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def read_config(filename: str | Path) -> Config:
    """The config of a path or ``ldae::`` name, as it stands in its file.

    Raises:
        ConfigError: There is no such file, or it can't be read.
    """
    path = find_config(filename)
    try:
        return Config.fromfile(path)
    except ConfigError:
        raise
    except Exception as error:  # a config is a program: it may raise anything
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ['']
        raise ConfigError(f'config {path} cannot be read: {type(error).__name__}: {lines[-1]}') from error


def walk_dicts(node: object) -> Iterator[dict]:
    """Every dict in a nest of dicts and lists, outermost first."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for child in node:
            yield from walk_dicts(child)


def set_data_root(cfg: Config, data_root: str) -> None:
    """Point the config at another folder: the variable ``data_root`` and all that was given its value.

    A config without that variable has every ``data_root`` in it replaced.
    """
    has_variable = 'data_root' in cfg
    old = cfg.get('data_root')
    for node in walk_dicts(cfg._cfg_dict):
        if 'data_root' in node and (not has_variable or node['data_root'] == old):
            node['data_root'] = data_root
    cfg.data_root = data_root


def pipeline_of(cfg: Config, loaders: Iterable[str]) -> list[dict] | None:
    """Steps of the first of ``loaders`` whose data set, or the one inside it, has any; None where none has."""
    for name in loaders:
        node = (cfg.get(name) or {}).get('dataset') or {}
        while 'pipeline' not in node and isinstance(node.get('dataset'), dict):
            node = node['dataset']
        if node.get('pipeline'):
            return list(node['pipeline'])
    return None
