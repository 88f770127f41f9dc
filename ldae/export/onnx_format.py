# SPDX-License-Identifier: Apache-2.0
"""One ONNX file: ``images`` (batch, C, H, W) -> ``features`` (batch, C) and ``tokens`` (batch, L, C), batch dynamic."""

import json
import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from ldae.utils.optional import import_extra
from ldae.utils.sizes import height_width

from .plain_vit import Features, PlainViT
from .preprocessing import Preprocessing
from .timm_format import build

SUFFIX, BESIDE = '.onnx', None
EXTRA = ('onnx', 'onnxruntime')
#: LayerNormalization came with opset 17; 18 is the first that torch's exporter writes.
OPSET = 18


class _FeaturesAndTokens(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.model.forward_features(images)
        return self.model.forward_head(tokens, pre_logits=True), tokens


def hint(out: Path) -> str:
    return f"onnxruntime.InferenceSession('{out}').run(['features', 'tokens'], dict(images=images))"


def write(vit: PlainViT, preprocessing: Preprocessing, about: dict, out: Path) -> None:
    """Write the file ``out``; ``metadata_props`` say how to prepare pictures."""
    onnx = import_extra('onnx', 'onnx', 'export to ONNX')
    import_extra('onnxscript', 'onnx', 'export to ONNX')
    _export(_FeaturesAndTokens(build(vit)).eval(), torch.zeros(2, vit.in_channels, *height_width(vit.img_size)), out)
    model = onnx.load(str(out))
    for key, value in dict(about, preprocessing=json.dumps(preprocessing.as_dict())).items():
        model.metadata_props.add(key=f'ldae.{key}', value=str(value))
    model.producer_name = 'ldae'
    onnx.save(model, str(out))


def _export(model: nn.Module, example: Tensor, out: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)  # of operators that torch would convert if torchvision's were used
        try:
            shapes = dict(
                dynamic_shapes=dict(images={0: torch.export.Dim('batch')}), external_data=False, verbose=False
            )
            names = dict(input_names=['images'], output_names=['features', 'tokens'])
            torch.onnx.export(model, (example,), str(out), dynamo=True, opset_version=OPSET, **names, **shapes)
        finally:
            logging.disable(before)


def read(out: Path) -> Features:
    """The session that onnxruntime makes of the file on the CPU: images -> (tokens, feature)."""
    runtime = import_extra('onnxruntime', 'onnx', 'export to ONNX')
    session = runtime.InferenceSession(str(out), providers=['CPUExecutionProvider'])

    def features(images: Tensor) -> tuple[Tensor, Tensor]:
        pooled, tokens = session.run(['features', 'tokens'], dict(images=images.numpy()))
        return torch.from_numpy(tokens), torch.from_numpy(pooled)

    return features
