# SPDX-License-Identifier: Apache-2.0
"""A checkpoint for mmpretrain's ``VisionTransformer``, and beside it the config that it belongs to."""

from pathlib import Path

import mmpretrain
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from torch import Tensor

from ldae.models.layers.dit_block import NORM_CFG
from ldae.utils import ConfigError
from ldae.utils.checkpoints import read_checkpoint
from ldae.utils.files import atomic_save
from ldae.utils.models import changed
from ldae.utils.sizes import height_width

from .plain_vit import Features, PlainViT
from .preprocessing import Preprocessing

SUFFIX, BESIDE = '.pth', '.py'
EXTRA = None
HEADER = """# An encoder exported by ldae, for mmpretrain {version} and nothing else of ldae's:
#   mmpretrain.get_model('{name}.py', pretrained='{name}.pth').extract_feat(images)
# or, as a backbone: init_cfg=dict(type='Pretrained', checkpoint='{name}.pth', prefix='backbone.')
"""


def hint(out: Path) -> str:
    return f"mmpretrain.get_model('{out.with_suffix('.py')}', pretrained='{out}')"


def model_config(vit: PlainViT) -> dict:
    """mmpretrain's model: ``'avg_featmap'`` would put a LayerNorm on the average, so an average without is a neck."""
    if vit.reg_tokens:
        raise ConfigError("mmpretrain's VisionTransformer has no registers: export to timm, hf or onnx instead")
    averages = vit.pool == 'avg'
    out_type = 'cls_token' if not averages else 'avg_featmap' if vit.pool_norm else 'featmap'
    arch = {key: getattr(vit, key) for key in ('embed_dims', 'num_layers', 'num_heads', 'feedforward_channels')}
    same = {key: getattr(vit, key) for key in ('img_size', 'patch_size', 'in_channels')}
    backbone = dict(type='VisionTransformer', arch=arch, **same, norm_cfg=dict(NORM_CFG), final_norm=vit.final_norm)
    backbone.update(with_cls_token=vit.class_token, out_type=out_type)
    neck = dict(type='GlobalAveragePooling') if out_type == 'featmap' else None
    return dict(type='ImageClassifier', backbone=backbone, neck=neck, head=None)


def full_config(vit: PlainViT, preprocessing: Preprocessing) -> dict:
    """The model with its data preprocessor, and the pipeline of its pictures."""
    values = {name: [round(255 * value, 5) for value in getattr(preprocessing, name)] for name in ('mean', 'std')}
    grey = preprocessing.in_channels == 1
    load = dict(type='LoadImageFromFile', **(dict(color_type='grayscale') if grey else {}))
    # mmpretrain resizes by one edge: for an oblong by the longer one, which covers it with images that are no more oblong.
    height, width = height_width(preprocessing.img_size)
    edge = 'short' if height == width else 'height' if height > width else 'width'
    resize = dict(type='ResizeEdge', scale=max(height_width(preprocessing.resize)), edge=edge, backend='pillow')
    resize.update(interpolation=preprocessing.interpolation)
    crop = dict(type='CenterCrop', crop_size=height if height == width else (width, height))
    pipeline = [load, resize, crop] if preprocessing.of_pictures else []  # which it has no reader of
    pipeline.append(dict(type='PackInputs'))
    return dict(
        default_scope='mmpretrain',
        model=model_config(vit),
        data_preprocessor=dict(**values, to_rgb=preprocessing.in_channels == 3),
        test_pipeline=pipeline,
        test_dataloader=dict(dataset=dict(type='CustomDataset', pipeline=pipeline)),
    )


def write(vit: PlainViT, preprocessing: Preprocessing, about: dict, out: Path) -> None:
    """Write ``out`` and the config beside it."""
    config = Config(full_config(vit, preprocessing))
    text = HEADER.format(version=mmpretrain.__version__, name=out.stem) + config.pretty_text
    out.with_suffix('.py').write_text(text)
    state = {f'backbone.{key}': value for key, value in vit.state.items()}
    atomic_save(dict(meta=dict(about, cfg=config.pretty_text), state_dict=state), out)


def read(out: Path) -> Features:
    """The model that mmpretrain makes of the files: images -> (tokens, feature)."""
    cfg = Config.fromfile(out.with_suffix('.py'))
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    model.load_state_dict(read_checkpoint(out)['state_dict'])
    model.eval()

    @torch.no_grad()
    def features(images: Tensor) -> tuple[Tensor, Tensor]:
        feature = model.extract_feat(images, stage='neck')[-1]
        with changed(model.backbone, out_type='raw'):
            return model.backbone(images)[-1], feature

    return features
