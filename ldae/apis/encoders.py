# SPDX-License-Identifier: Apache-2.0
"""Encoders to take features of, wherever they were trained: one name, folder or file for each."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from PIL import Image
from torch import Tensor, nn

from ldae.config.packed import use_packed_data
from ldae.config.reading import LOADERS, resized_pipeline, walk_dicts
from ldae.config.stored import check_size
from ldae.models.encoders import Encoder, TransformersBackbone
from ldae.models.vit_files import BESIDE, vit_of_state
from ldae.utils import ConfigError
from ldae.utils.checkpoints import compare_keys, read_checkpoint, report_keys
from ldae.utils.errors import nearest, short
from ldae.utils.optional import import_extra
from ldae.utils.sizes import height_width

from .models import CHECKPOINTS, MMPRETRAIN, TIMM, get_model, to_device
from .preprocess import image_shape_of

TRANSFORMERS, LOCAL = 'transformers::', 'local-dir:'
WEIGHTS = ('model.safetensors', 'pytorch_model.bin', 'model-*-of-*.safetensors', 'pytorch_model-*-of-*.bin')
#: By which ImageNet's pixels are normalised, as the authors of MAE, MoCo v3 and DINO do; of 0 to 1.
IMAGENET = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
#: Of a config of transformers: what would fetch code, or is of no use for features.
NOT_FOLLOWED = re.compile('quantization|_implementation$|^(?:torch_)?dtype$')
NAMES = 'timm::NAME, transformers::NAME, mmpretrain::NAME, a folder in the format of timm or transformers, or a file of weights'


def get_encoder(
    model: str | os.PathLike | Config | None = None,
    checkpoint: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
    pretrained: bool = False,
    **options: Any,
) -> nn.Module:
    """Build an encoder in evaluation mode, with the preparation of images that it was trained by.

    It has a ``backbone`` or is one, and, unless it is what :func:`ldae.get_model` builds, is an
    :class:`ldae.models.encoders.Encoder`. What was recognised in a file or folder is logged in one line. Nothing that is
    read runs: files hold tensors and settings, and only ``pretrained`` reaches a network.

    Args:
        model: What :func:`ldae.get_model` takes; ``'transformers::NAME'``; a folder in the format of timm or transformers
            (``config.json`` and weights); or what ``checkpoint`` may be.
        checkpoint: Weights for ``model``. Alone, a checkpoint that holds its config; an official file of MAE, MoCo v3, DINO
            or DINOv2; a ViT's state dict in timm's, torchvision's or mmpretrain's names; or a name or folder as above.
        device, pretrained: As of :func:`ldae.get_model`; a folder has its own weights, and needs no ``pretrained``.
        **options: Further ones of :func:`ldae.get_model`. For a file without a config, ``cfg_options=dict(num_heads=N)``, which
            no tensor shows: width / 64 by default.

    Raises:
        ConfigError: For what is not there, not an image encoder, not known, or more than data.
    """
    if model is None and checkpoint is not None and not _is_checkpoint(checkpoint):
        model, checkpoint = checkpoint, None
    if model is not None and checkpoint is None and _is_checkpoint(model):
        model, checkpoint = None, model
    name = '' if isinstance(model, Config) else str(model)
    folder = Path(name.removeprefix(TIMM).removeprefix(TRANSFORMERS).removeprefix(LOCAL)).expanduser()
    if model is None and checkpoint is not None:
        encoder = _of_file(checkpoint, options)
        if encoder is None:
            return get_model(None, checkpoint, device, pretrained=pretrained, **options)
    elif name and (folder.is_dir() or name.startswith((TRANSFORMERS, TIMM + LOCAL))):
        _refuse_others(name, dict(options, checkpoint=checkpoint))
        encoder = _of_folder(folder if folder.is_dir() else _downloaded(name, pretrained), name)
    elif name.startswith(TIMM):
        network = get_model(model, checkpoint, device, pretrained=pretrained, **options)
        weights = str(checkpoint) if checkpoint is not None else f'those of {name}' if pretrained else None
        encoder = Encoder(network, name, _pictures_of_timm(network, network.pretrained_cfg), weights)
    else:
        encoder = get_model(model, checkpoint, device, pretrained=pretrained, **options)
        if name.startswith(MMPRETRAIN):  # whose images are its own; on others it has its size, too
            encoder.input_size = height_width(image_shape_of(encoder)[0])
        return encoder
    return to_device(encoder.eval(), device)


def encoder_images(cfg: Config, model: nn.Module) -> Config:
    """A copy of a config whose images come at the size that an encoder trained elsewhere takes, so that none is made smaller
    than that first, and is cropped as before in proportion; for any other model, as they are.

    Packed images and those in memory keep their size: :class:`ldae.models.encoders.EncoderPreprocessor` brings them to the
    encoder's."""
    cfg = deepcopy(cfg)
    use_packed_data(cfg)
    size = getattr(model, 'input_size', None)
    if size is None:
        return cfg
    for node in walk_dicts([cfg.get(name) for name in LOADERS]):
        if node.get('pipeline') and 'Packed' not in str(node.get('type')):
            node['pipeline'] = resized_pipeline(node['pipeline'], max(size))
    return cfg


def _is_checkpoint(path: Any) -> bool:
    return isinstance(path, str | os.PathLike) and Path(path).suffix in CHECKPOINTS and not Path(path).is_dir()


def _refuse_others(name: object, options: Mapping[str, Any]) -> None:
    """Options that only a model with a config of ldae's or mmpretrain's has."""
    if given := [key for key, value in options.items() if value and key != 'scale']:  # which may be that of the images
        raise ConfigError(f'{", ".join(given)}: for a model that has a config, but {name} has none: leave it out')


def _of_file(path: str | os.PathLike, options: Mapping[str, Any]) -> Encoder | None:
    """The encoder that a file of weights holds; None for one that holds a config of its own."""
    content = read_checkpoint(path)
    meta = content.get('meta')
    if isinstance(meta, dict) and meta.get('cfg'):
        return None
    own = dict(options.get('cfg_options') or {})
    heads = own.pop('num_heads', None)
    _refuse_others(path, dict(options, cfg_options=own))
    vit, about = vit_of_state(content['state_dict'], path, heads, content.get('arch'))
    size, channels = vit.patch_embed.img_size, vit.patch_embed.proj.in_channels
    pictures = dict(input_size=(channels, *size), interpolation='bicubic', crop_pct=0.875, crop_mode='center')
    pictures |= {key: values if channels == 3 else (0.5,) * channels for key, values in IMAGENET.items()}
    whose = "ImageNet's" if channels == 3 else 'a'
    print_log(f'{path}: {about}; pixels are normalised by {whose} mean and deviation', 'current')
    return Encoder(vit, about, pictures, str(path))


def _of_folder(folder: Path, name: str) -> Encoder:
    """The encoder of a folder that timm or transformers wrote."""
    path = folder / 'config.json'
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f'{folder} is not a folder of an encoder: it has no config.json; name {NAMES}') from error
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f'{path} cannot be read: {short(error)}') from error
    if not isinstance(config, dict) or not (config.get('architecture') or config.get('model_type')):
        raise ConfigError(f"{path} is neither timm's (architecture) nor transformers' (model_type): name {NAMES}")
    if any(node.get('auto_map') for node in walk_dicts(config)):
        raise ConfigError(
            f'{path} asks to run code of its own (auto_map), which is never done: use an architecture of timm or transformers'
        )
    for node in walk_dicts(config):
        check_size(node, str(path))
        for key in [key for key in node if NOT_FOLLOWED.search(key)]:
            del node[key]
    build = _of_timm_folder if config.get('architecture') else _of_transformers_folder
    encoder = build(folder, config)
    print_log(f'{name}: {encoder.about}, images of {" x ".join(map(str, encoder.input_size))}', 'current')
    return encoder


def _weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, of safetensors where there are both kinds."""
    files = next((found for pattern in WEIGHTS if (found := sorted(folder.glob(pattern)))), [])
    if not files:
        raise ConfigError(
            f'{folder} has a config.json and no weights ({" or ".join(WEIGHTS[:2])}): take the whole folder'
        )
    return {key: value for file in files for key, value in read_checkpoint(file)['state_dict'].items()}


def _of_timm_folder(folder: Path, config: dict) -> Encoder:
    import timm

    name, given = config['architecture'], config.get('model_args') or {}
    where = folder / 'config.json'
    if not isinstance(name, str) or not timm.is_model(name):
        raise ConfigError(
            f'{where}: timm has no architecture {str(name)[:80]!r}{nearest(str(name), timm.list_models())}'
        )
    bad = [key for key in given if str(key).startswith(('pretrained', 'checkpoint', 'cache_dir', 'num_classes'))]
    if bad or not isinstance(given, dict):
        raise ConfigError(f'{where}: model_args may describe the network only, not {", ".join(bad) or given!r}')
    state = {key.removeprefix('timm_model.'): value for key, value in _weights(folder).items()}
    try:
        with torch.device('meta'):  # shapes are compared before memory is taken for them
            own = timm.create_model(name, pretrained=False, num_classes=0, **given).state_dict()
        state = {key: value for key, value in state.items() if key in own or not BESIDE.search(key)}
        _check_exactly(own, state, folder)
        network = timm.create_model(name, pretrained=False, num_classes=0, **given)
        network.load_state_dict(state)
        return Encoder(
            network, f"timm's {name}", _pictures_of_timm(network, config.get('pretrained_cfg') or {}), str(folder)
        )
    except ConfigError:
        raise
    except Exception as error:  # of whatever class builds it
        raise ConfigError(f'{where}: timm cannot build its {name} ({short(error)})') from error


def _check_exactly(own: Mapping[str, Tensor], state: Mapping[str, Tensor], where: Path) -> None:
    """Raise ConfigError unless a folder holds all tensors of its model, and no others."""
    compare_keys(str(where), own, state)
    if unknown := [key for key in state if key not in own]:
        raise ConfigError(
            f'{where} holds {len(unknown)} tensors that its architecture lacks ({", ".join(unknown[:3])})'
        )


def _pictures_of_timm(network: nn.Module, about: Mapping[str, Any]) -> dict[str, Any]:
    """How pictures are prepared; the size is that of the network, where it says so."""
    from timm.data import resolve_data_config

    pictures = resolve_data_config({}, pretrained_cfg=dict(about), model=network)
    size = getattr(getattr(network, 'patch_embed', None), 'img_size', None) or pictures['input_size'][1:]
    return dict(pictures, input_size=(pictures['input_size'][0], *size))


def _downloaded(name: str, pretrained: bool) -> Path:
    """The folder of a name of the Hugging Face hub: from its cache, or downloaded if that was asked for."""
    hub = import_extra('huggingface_hub', 'hf', name)
    parts = ['*.json'], ['*.safetensors'], ['pytorch_model*.bin']
    hub_name = name.removeprefix(TRANSFORMERS).removeprefix(TIMM).removeprefix(LOCAL)
    if name.startswith(TIMM):
        raise ConfigError(f'{name}: there is no folder {hub_name}')
    try:
        for patterns in parts:
            folder = Path(hub.snapshot_download(hub_name, allow_patterns=patterns, local_files_only=not pretrained))
            if any(found for pattern in WEIGHTS for found in folder.glob(pattern)):
                break
        return folder
    except Exception as error:  # of the network, and of the hub's library
        hint = (
            f'cannot be downloaded ({short(error)})'
            if pretrained
            else 'is neither a folder nor downloaded yet: add --pretrained to download it'
        )
        raise ConfigError(f'{name} {hint}') from error


def _of_transformers_folder(folder: Path, config: dict) -> Encoder:
    transformers = import_extra('transformers', 'hf', f'{folder}, an encoder of transformers,')
    where, kind = folder / 'config.json', config['model_type']
    try:
        settings = transformers.CONFIG_MAPPING[kind].from_dict(config)
        settings = getattr(settings, 'vision_config', settings)  # of a model of pictures and text
        network_class = transformers.MODEL_MAPPING[type(settings)]
    except Exception as error:  # of whatever class reads it
        raise ConfigError(
            f'{where}: transformers has no image model of type {str(kind)[:80]!r} ({short(error)})'
        ) from error
    if getattr(network_class, 'main_input_name', None) != 'pixel_values':
        raise ConfigError(f'{where}: {kind!r} takes no images: name an image model')
    if hasattr(settings, 'mask_ratio'):
        settings.mask_ratio = 0.0  # MAE's features are of all patches
    state = _weights(folder)
    try:
        with _quiet(transformers):
            network, found = network_class.from_pretrained(
                None, config=settings, state_dict=state, output_loading_info=True
            )
    except Exception as error:
        raise ConfigError(f'{folder}: transformers cannot load its {kind} ({short(error, 200)})') from error
    missing, total = sorted(found['missing_keys']), len(network.state_dict())
    pooler = [key for key in missing if 'pooler' in key]
    report_keys(str(folder), [key for key in missing if key not in pooler], sorted(found['mismatched_keys']), total)
    pictures = _pictures_of_transformers(folder, settings)
    try:
        network = network.float().eval()
        backbone = TransformersBackbone(network, tuple(pictures['input_size'][1:]), not pooler)
    except Exception as error:
        raise ConfigError(
            f'{folder}: {kind} gives no features of images of {pictures["input_size"][1:]} pixels ({short(error)})'
        ) from error
    return Encoder(backbone, f"transformers' {kind} ({network_class.__name__})", pictures, str(folder))


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without its report of tensors that weren't used, which are checked here."""
    logging = transformers.utils.logging
    level, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def _pictures_of_transformers(folder: Path, settings: Any) -> dict[str, Any]:
    """As ``preprocessor_config.json`` says; where there is none, ImageNet's mean and deviation at the model's size."""
    path, channels = folder / 'preprocessor_config.json', getattr(settings, 'num_channels', 3)
    try:
        says = json.loads(path.read_text()) if path.is_file() else {}
        size = _edges(says.get('size'))
        crop = _edges(says.get('crop_size')) if says.get('do_center_crop', 'crop_size' in says) else None
        own = _edges(getattr(settings, 'image_size', None)) or (224, 224)
        is_edge = isinstance(says.get('size'), dict) and 'shortest_edge' in says['size']
        result = crop or (size if says.get('do_resize', True) else None) or own
        normalises = says.get('do_normalize', True)
        mean, std = (says.get(f'image_{key}') or IMAGENET[key] for key in ('mean', 'std'))
        mean, std = (mean, std) if normalises else ((0.0,), (1.0,))
        mean, std = (tuple(map(float, values * channels if len(values) == 1 else values)) for values in (mean, std))
        resample = Image.Resampling(says.get('resample', Image.Resampling.BICUBIC)).name.lower()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f'{path} cannot be read: {short(error)}') from error
    share = min(1.0, result[0] / size[0]) if crop and size else 1.0
    mode = 'center' if crop or is_edge else 'squash'
    return dict(
        input_size=(channels, *result), mean=mean, std=std, interpolation=resample, crop_pct=share, crop_mode=mode
    )


def _edges(size: Any) -> tuple[int, int] | None:
    """Height and width, of a number, a pair or a dict; None where it doesn't say."""
    if isinstance(size, Mapping):
        size = size.get('shortest_edge') or (size.get('height') and (size['height'], size['width']))
    if not size:
        return None
    height, width = (size, size) if isinstance(size, int) else map(int, size)
    if not (1 <= height <= 4096 and 1 <= width <= 4096):
        raise ValueError(f'images of {height} x {width}')
    return height, width
