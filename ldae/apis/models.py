# SPDX-License-Identifier: Apache-2.0
"""Models by name, by config, or by what their checkpoint says of itself."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import nn

from ldae.config.loading import load_config
from ldae.config.reading import list_configs, walk_dicts
from ldae.config.stored import ADVICE, read_stored_config
from ldae.registry import MODELS
from ldae.utils import ConfigError
from ldae.utils.checkpoints import averaged_weights, compare_keys, hint_of_names, read_checkpoint
from ldae.utils.device import find_device
from ldae.utils.errors import nearest, short

#: Endings of files of weights.
CHECKPOINTS = ('.pth', '.pt', '.tar', '.bin', '.safetensors')
#: Other libraries' models: ``timm::vit_base_patch16_224``, ``mmpretrain::mae_vit-base-p16_8xb512-amp-coslr-300e_in1k``.
TIMM, MMPRETRAIN = 'timm::', 'mmpretrain::'


def list_models(pattern: str | None = None) -> list[str]:
    """Names of the configs that :func:`get_model` builds, such as ``'ldae/vit-b_pca'``.

    Args:
        pattern: Of the whole name, with the wildcards of a shell: ``'ldae/*'``, ``'*finetune*'``.
    """
    return [name for name in list_configs() if pattern is None or fnmatch(name, pattern)]


def get_model(
    model: str | os.PathLike | Config | None = None,
    checkpoint: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
    scale: str | None = None,
    cfg_options: dict | None = None,
    backbone: dict | None = None,
    pretrained: bool = False,
    ema: bool = False,
) -> nn.Module:
    """Build a model in evaluation mode.

    Args:
        model: A name of :func:`list_models` or an unmistakable last part of one, a config file, ``'ldae::...'``, a
            ``Config``, ``'timm::NAME'`` or ``'mmpretrain::NAME'``. None takes the config that ``checkpoint`` holds, as
            data: it may name registered components only, so import the module that registers your own before. A file
            that ends in .pth or .pt is taken for ``checkpoint``.
        checkpoint: Its weights, all of them; without one they are initialised as for training.
        device: ``'auto'``, or None, takes the GPU if there is one; else its name, as ``'cpu'``, ``'cuda:1'``, ``'mps'``.
        scale: A scale to bring the config to (:func:`ldae.config.scale.apply_scale`).
        cfg_options: Dotted keys and values merged into the config.
        backbone: Options merged into the config of the backbone, such as ``dict(timestep=100)``.
        pretrained: Download the weights that timm or mmpretrain has for its model.
        ema: The running average of the weights that the checkpoint holds beside them, instead of the weights.

    Returns:
        The model; ``model._config`` is the config it was built from, None for timm's.

    Raises:
        ConfigError: An unknown name, or a checkpoint that doesn't fit or can't be trusted.
    """
    if checkpoint is None and isinstance(model, str | os.PathLike) and Path(model).suffix in CHECKPOINTS:
        model, checkpoint = None, model
    content = None if checkpoint is None else read_checkpoint(checkpoint)
    if ema:
        if content is None:
            raise ConfigError('--ema takes the average of the weights from a checkpoint: name one')
        content = dict(content, state_dict=averaged_weights(checkpoint, content))
    if str(model).startswith(TIMM):
        built = _timm_model(str(model).removeprefix(TIMM), content, checkpoint, pretrained)
    elif str(model).startswith(MMPRETRAIN):
        built = _mmpretrain_model(str(model).removeprefix(MMPRETRAIN), pretrained)
        _load(built, content, checkpoint)
    else:
        if pretrained:
            raise ConfigError(f'{model}: there are no weights to download: name a checkpoint')
        cfg = _find_config(model, content, checkpoint, scale, cfg_options)
        try:
            built = _build(cfg, backbone, has_weights=content is not None)
        except Exception as error:
            if model is not None or isinstance(error, ConfigError):
                raise
            why = short(error, 200)
            raise ConfigError(f'{checkpoint}: what its config describes cannot be built ({why}): {ADVICE}') from error
        _load(built, content, checkpoint)
    built.eval()
    return to_device(built, device)


def to_device(model: nn.Module, device: str | torch.device | None) -> nn.Module:
    """Move a model; raise ConfigError if there is no such device."""
    # It is found first, since mmengine's models note a device before they are moved.
    return model.to(torch.device(find_device(device)))


def load_config_of(checkpoint: str | os.PathLike) -> Config:
    """The config that a checkpoint was trained by, as it says itself.

    Raises:
        ConfigError: If it says nothing, or more than data.
    """
    return _stored_config(read_checkpoint(checkpoint), checkpoint)


def _find_config(
    model: str | os.PathLike | Config | None,
    content: dict | None,
    checkpoint: str | os.PathLike | None,
    scale: str | None,
    cfg_options: dict | None,
) -> Config:
    if model is None and content is None:
        raise ConfigError('get_model: name a model, or a checkpoint, or both')
    if model is None:
        model = _stored_config(content, checkpoint)
    else:
        model = Config(model._cfg_dict.to_dict()) if isinstance(model, Config) else str(model)
    return load_config(model, cfg_options, scale)


def _stored_config(content: dict, checkpoint: str | os.PathLike) -> Config:
    meta = content.get('meta')
    if 'meta' not in content and (hint := hint_of_names(content['state_dict'])):
        raise ConfigError(f'{checkpoint} does not say by which config it was trained{hint}')
    return read_stored_config(meta.get('cfg') if isinstance(meta, dict) else None, checkpoint)


def _build(cfg: Config, backbone: dict | None, has_weights: bool) -> nn.Module:
    if 'model' not in cfg:
        raise ConfigError(f'{cfg.filename or "the config"} describes no model')
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    model_cfg = cfg.model.to_dict()
    if 'data_preprocessor' in cfg:
        model_cfg.setdefault('data_preprocessor', cfg.data_preprocessor.to_dict())
    if backbone:  # a tokenizer in training has none
        model_cfg.setdefault('backbone', {}).update(backbone)
    for node in walk_dicts(model_cfg):
        forget_files(node, has_weights)
    with _quiet():
        model = MODELS.build(model_cfg)
        if not has_weights and hasattr(model, 'init_weights'):
            model.init_weights()
    model._config = cfg
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    # mmengine logs how each of the parameters was initialised.
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def forget_files(node: dict, has_weights: bool) -> None:
    """Files that a checkpoint replaces, or that the config leaves to the command line."""
    init = node.get('init_cfg')
    if isinstance(init, dict) and init.get('type') == 'Pretrained' and (has_weights or not init['checkpoint']):
        node['init_cfg'] = None
    if has_weights and str(node.get('type')).endswith('Tokenizer') and 'checkpoint' in node:
        node['checkpoint'] = None


def _load(model: nn.Module, content: dict | None, checkpoint: str | os.PathLike | None) -> None:
    if content is None:
        return

    loaded = {key.removeprefix('module.'): value for key, value in content['state_dict'].items()}
    own = model.state_dict()
    compare_keys(str(checkpoint), own, loaded, found=loaded)
    unknown = [key for key in loaded if key not in own]
    if unknown:
        raise ConfigError(
            f'{checkpoint} holds {len(unknown)} tensors that the model lacks ({", ".join(unknown[:3])}...): '
            'use the config that it was made with'
        )
    model.load_state_dict(loaded)


def _timm_model(name: str, content: dict | None, checkpoint: str | os.PathLike | None, pretrained: bool) -> nn.Module:
    import timm

    try:
        model = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except RuntimeError as error:
        raise ConfigError(f'timm has no model {name!r}{nearest(name.partition(".")[0], timm.list_models())}') from error
    except OSError as error:
        raise ConfigError(f'{TIMM}{name}: its weights cannot be downloaded ({short(error)})') from error
    if content is not None:
        heads = (model.pretrained_cfg or {}).get('classifier') or 'head'
        heads = (heads,) if isinstance(heads, str) else tuple(heads)
        state = content['state_dict']
        heads += ('decoder_', 'mask_token')  # of MAE's own checkpoints
        content = dict(state_dict={key: value for key, value in state.items() if not key.startswith(heads)})
    _load(model, content, checkpoint)
    model._config = None
    return model


def _mmpretrain_model(name: str, pretrained: bool) -> nn.Module:
    import mmpretrain

    try:
        with _quiet():
            model = mmpretrain.get_model(name, pretrained=pretrained)
    except ValueError as error:
        raise ConfigError(f'mmpretrain has no model {name!r}{nearest(name, mmpretrain.list_models())}') from error
    except OSError as error:
        raise ConfigError(f'{MMPRETRAIN}{name}: its weights cannot be downloaded ({short(error)})') from error
    return model
