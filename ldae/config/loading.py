# SPDX-License-Identifier: Apache-2.0
"""A config with the options of a command merged into it."""

from pathlib import Path

from mmengine.config import Config

from ldae.utils.errors import ConfigError, nearest

from .reading import read_config, set_data_root
from .scale import PAPER, apply_scale
from .sections import TOP_LEVEL


def load_config(
    filename: str | Path | Config,
    cfg_options: dict | None = None,
    scale: str | Path | None = None,
    data_root: str | None = None,
    epochs: int | None = None,
) -> Config:
    """Read a config and merge options into it.

    Args:
        filename: A path or ``ldae::ldae/vit-b_pca.py``; or a config, which is changed.
        cfg_options: Dotted keys and values, as ``--cfg-options`` gives them. ``data_root`` is carried to every data set
            that uses the config's own ``data_root``.
        scale: A scale to bring the config to, before options are merged: see :func:`ldae.config.scale.apply_scale`;
            ``'paper'`` leaves it as it is.
        data_root: As the option of that name, which it goes before.
        epochs: At a scale, what becomes of the paper's 400 instead of the scale's.
    """
    cfg = filename if isinstance(filename, Config) else read_config(filename)
    if scale is not None and scale != PAPER:
        apply_scale(cfg, scale, epochs)
    options = dict(cfg_options or {})
    root_of_options = options.pop('data_root', None)
    data_root = root_of_options if data_root is None else data_root
    if options:
        _check_names(cfg, options)
        _open_schedule(cfg, options)
        try:
            cfg.merge_from_dict(options)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            reason = error.args[0] if error.args else type(error).__name__
            raise ConfigError(f'--cfg-options {" ".join(options)} does not fit the config: {reason}') from error
    if data_root is not None:
        set_data_root(cfg, data_root)
    model = cfg.get('model')
    model = model if isinstance(model, dict) else {}
    tokenizer = model.get('tokenizer')
    channels = tokenizer.get('in_channels', 3) if isinstance(tokenizer, dict) else 3
    if model.get('perceptual') and channels not in (1, 3):  # which a study of many would hear of late
        raise ConfigError(
            f'{cfg.filename}: its perceptual loss is of grey or RGB images, and these have {channels} bands'
        )
    return cfg


def _open_schedule(cfg: Config, options: dict) -> None:
    """A noise schedule that is given by its name alone becomes a dict, where options of it are named."""
    noiser = (cfg.get('model') or {}).get('noiser')
    if isinstance((noiser or {}).get('schedule'), str) and any(o.startswith('model.noiser.schedule.') for o in options):
        noiser.schedule = dict(type=noiser.schedule)


def _check_names(cfg: Config, options: dict) -> None:
    """A setting named on the command line must be one of the config's or one that something reads."""
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
