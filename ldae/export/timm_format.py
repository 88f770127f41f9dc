# SPDX-License-Identifier: Apache-2.0
"""A folder that timm loads by itself: ``timm.create_model('local-dir:FOLDER', pretrained=True)``."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from ldae.models.vit_files import timm_name
from ldae.utils import ConfigError
from ldae.utils.optional import import_extra
from ldae.utils.sizes import height_width

from .plain_vit import Features, PlainViT
from .preprocessing import Preprocessing

SUFFIX, BESIDE = '', None
EXTRA = ('export', 'safetensors')
WEIGHTS = 'model.safetensors'
CONFIG = 'config.json'
# Any entry of timm's will do, all of its arguments being given; by width, so that the name says something.
ENTRIES = {192: 'tiny', 384: 'small', 768: 'base', 1024: 'large'}


def hint(out: Path) -> str:
    return f"timm.create_model('local-dir:{out}', pretrained=True)"


def timm_state(vit: PlainViT) -> dict[str, Tensor]:
    """The parameters under timm's names."""
    return {timm_name(key): value.contiguous() for key, value in vit.state.items()}


def timm_entry(vit: PlainViT) -> str:
    return f'vit_{ENTRIES.get(vit.embed_dims, "base")}_patch16_224'


def model_args(vit: PlainViT) -> dict:
    """Arguments of ``timm.create_model``; ``num_classes`` is the user's."""
    ratio = vit.feedforward_channels / vit.embed_dims
    if int(vit.embed_dims * ratio) != vit.feedforward_channels:
        ratio = (vit.feedforward_channels + 0.5) / vit.embed_dims  # timm rounds down
    geometry = dict(
        img_size=vit.img_size, patch_size=vit.patch_size, in_chans=vit.in_channels, embed_dim=vit.embed_dims
    )
    # They have no positions; no encoder of ours has a class token as well, which would have one.
    geometry |= dict(reg_tokens=vit.reg_tokens, no_embed_class=True) if vit.reg_tokens else {}
    network = dict(depth=vit.num_layers, num_heads=vit.num_heads, mlp_ratio=ratio, class_token=vit.class_token)
    norms = dict(global_pool=vit.pool, final_norm=vit.final_norm or vit.pool_norm, fc_norm=vit.pool_norm)
    return geometry | network | norms


def timm_config(vit: PlainViT, preprocessing: Preprocessing, about: dict) -> dict:
    """``config.json``: how to build the model and what its pictures go through."""
    size = [vit.in_channels, *height_width(vit.img_size)]
    pictures = dict(interpolation=preprocessing.interpolation, crop_pct=preprocessing.crop_pct, crop_mode='center')
    pretrained = dict(tag='ldae', custom_load=False, input_size=size, fixed_input_size=True, **pictures)
    pretrained |= dict(mean=list(preprocessing.mean), std=list(preprocessing.std), num_classes=0, pool_size=None)
    pretrained |= dict(first_conv='patch_embed.proj', classifier='head')
    names = dict(architecture=timm_entry(vit), num_classes=0, num_features=vit.embed_dims, global_pool=vit.pool)
    return dict(names, model_args=model_args(vit), pretrained_cfg=pretrained, ldae=about)


def build(vit: PlainViT) -> nn.Module:
    """timm's model with these weights, without a file."""
    import timm

    model = timm.create_model(timm_entry(vit), num_classes=0, **model_args(vit)).eval()
    try:
        model.load_state_dict(timm_state(vit))
    except RuntimeError as error:
        reason = ' '.join(str(error).split())
        raise ConfigError(f'the encoder has other parameters than a plain ViT: {reason}') from error
    return model


def write(vit: PlainViT, preprocessing: Preprocessing, about: dict, out: Path) -> None:
    """Write the folder ``out``."""
    write_folder(vit, timm_config(vit, preprocessing, about), about, out)


def write_folder(vit: PlainViT, config: dict, about: dict, out: Path) -> None:
    """``config.json`` and ``model.safetensors`` in a new folder."""
    save_file = import_extra('safetensors.torch', 'export', 'export to timm').save_file
    out.mkdir()
    (out / CONFIG).write_text(json.dumps(config, indent=2) + '\n')
    # Metadata are strings; transformers asks for 'format'.
    text = {key: str(value) for key, value in about.items()}
    settings = dict(architecture=config['architecture'], model_args=json.dumps(config['model_args']))
    save_file(timm_state(vit), out / WEIGHTS, metadata=dict(text, format='pt', **settings))


def read(out: Path) -> Features:
    """The model that timm makes of the folder: images -> (tokens, feature)."""
    import timm

    return features_of(timm.create_model(f'local-dir:{out}', pretrained=True).eval())


def features_of(model: nn.Module) -> Features:
    """A timm model as images -> (tokens, feature)."""

    @torch.no_grad()
    def features(images: Tensor) -> tuple[Tensor, Tensor]:
        tokens = model.forward_features(images)
        return tokens, model.forward_head(tokens, pre_logits=True)

    return features
