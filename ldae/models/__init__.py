# SPDX-License-Identifier: Apache-2.0
"""Importing this package registers every component."""

from .backbones import LDAEViT
from .dino import DINO, DINOProjection
from .encoders import Encoder, EncoderPreprocessor
from .heads import CleanLatentHead, DecodedImageHead, DenoisingHead, LatentHead, NoiseHead, OriginalImageHead
from .ldae import LDAE
from .masking import RandomMasking
from .necks import LDAEDecoder
from .noisers import GaussianNoiser, NoisySample, TokenNoiser
from .simmim import SimMIM, SimMIMDecoder, SimMIMViT
from .tokenizer_training import TokenizerTrainer
from .tokenizers import (
    BaseTokenizer,
    ConvVAETokenizer,
    DCTTokenizer,
    Geometry,
    PatchAETokenizer,
    PatchPCATokenizer,
    PatchVAETokenizer,
    PixelTokenizer,
    RandomProjectionTokenizer,
)
