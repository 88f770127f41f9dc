# SPDX-License-Identifier: Apache-2.0
"""Finding and reading configs."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from mmengine.config import Config

from ldae.compat import PREFIX
from ldae.utils import ConfigError
from ldae.utils.errors import nearest

PACKAGE = Path(__file__).resolve().parent


def configs_root() -> Path:
    """The clone's ``configs/`` (also in an editable install), else those inside the installed package."""
    clone = PACKAGE.parent
    if (clone / 'configs' / 'ldae').is_dir() and (clone / 'setup.cfg').is_file():
        return clone / 'configs'
    return PACKAGE / '.mim' / 'configs'


def find_config(filename: str | Path) -> Path:
    """The file of a path, or of ``ldae::path`` below :func:`configs_root`; raise ConfigError if there is none."""
    name = str(filename)
    is_ours = name.startswith(PREFIX)
    path = configs_root() / name[len(PREFIX) :] if is_ours else Path(name).expanduser()
    if path.is_file():
        return path
    if is_ours:
        known = [
            PREFIX + file.relative_to(configs_root()).as_posix() for file in configs_root().rglob('*.py')
        ]
        raise ConfigError(f'config {name} does not exist in {configs_root()}{nearest(name, known)}')
    siblings = [str(file) for file in path.parent.glob('*.py')] if path.parent.is_dir() else []
    raise ConfigError(f'config {name} does not exist{nearest(name, siblings)}')


def load_config(
    filename: str | Path, cfg_options: dict | None = None, scale: str | Path | None = None
) -> Config:
    """Read a config and merge options into it.

    Args:
        filename: A path or ``ldae::ldae/vit-b_pca.py``.
        cfg_options: Dotted keys and values, as ``--cfg-options`` gives them. ``data_root`` is carried to every data set
            that uses the config's own ``data_root``.
        scale: A scale to bring the config to, before options are merged: see :func:`ldae.scale.apply_scale`.
    """
    path = find_config(filename)
    try:
        cfg = Config.fromfile(path)
    except ConfigError:
        raise
    except Exception as error:  # a config is a program: it may raise anything
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ['']
        raise ConfigError(f'config {path} cannot be read: {type(error).__name__}: {lines[-1]}') from error
    if scale is not None:
        from ldae.scale import apply_scale  # which reads configs itself

        apply_scale(cfg, scale)
    options = dict(cfg_options or {})
    data_root = options.pop('data_root', None)
    if options:
        _check_names(cfg, options)
        _merge(cfg, options)
    if data_root is not None:
        set_data_root(cfg, data_root)
    return cfg


def _check_names(cfg: Config, options: dict) -> None:
    """A setting named on the command line must be one of the config's or one that something reads."""
    from ldae.sections import TOP_LEVEL  # which needs all of mmengine

    for option in options:
        name = option.split('.')[0]
        if name not in cfg and name not in TOP_LEVEL:
            hint = nearest(name, {*cfg, *TOP_LEVEL})
            raise ConfigError(f'--cfg-options {option}: the config has no {name!r}{hint}')
    hooks = cfg.get('default_hooks') or {}
    for option, value in options.items():
        root, _, name = option.partition('.')
        if root == 'default_hooks' and name and value is None and name not in hooks:
            raise ConfigError(f'--cfg-options {option}=None leaves nothing out{nearest(name, hooks)}')


def _merge(cfg: Config, options: dict) -> None:
    try:
        cfg.merge_from_dict(options)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        reason = error.args[0] if error.args else type(error).__name__
        raise ConfigError(f'--cfg-options {" ".join(options)} does not fit the config: {reason}') from error


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


def walk_dicts(node: object) -> Iterator[dict]:
    """Every dict in a nest of dicts and lists, outermost first."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for child in node:
            yield from walk_dicts(child)


def pipeline_of(cfg: Config, loaders: Iterable[str]) -> list[dict] | None:
    """Steps of the first of ``loaders`` whose data set, or the one inside it, has any; None where none has."""
    for name in loaders:
        node = (cfg.get(name) or {}).get('dataset') or {}
        while 'pipeline' not in node and isinstance(node.get('dataset'), dict):
            node = node['dataset']
        if node.get('pipeline'):
            return list(node['pipeline'])
    return None
