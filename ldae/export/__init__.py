# SPDX-License-Identifier: Apache-2.0
"""The encoder for other libraries: a plain ViT for mmpretrain, timm, transformers and ONNX."""

from .convert import FORMATS, TOLERANCE, Exported, export_encoder
from .plain_vit import PlainViT, encoder_of, plain_vit, source_features
from .preprocessing import Preprocessing
