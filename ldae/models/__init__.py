# SPDX-License-Identifier: Apache-2.0
"""Importing this package registers every component."""

from .backbones import LDAEViT
from .heads import CleanLatentHead, DecodedImageHead, DenoisingHead, NoiseHead, OriginalImageHead
from .ldae import LDAE
from .necks import LDAEDecoder
from .noisers import GaussianNoiser, NoisySample
from .tokenizers import (
    BaseTokenizer,
    DCTTokenizer,
    Geometry,
    PatchPCATokenizer,
    PixelTokenizer,
    RandomProjectionTokenizer,
)

__all__ = [
    'LDAE',
    'BaseTokenizer',
    'CleanLatentHead',
    'DCTTokenizer',
    'DecodedImageHead',
    'DenoisingHead',
    'GaussianNoiser',
    'Geometry',
    'LDAEDecoder',
    'LDAEViT',
    'NoiseHead',
    'NoisySample',
    'OriginalImageHead',
    'PatchPCATokenizer',
    'PixelTokenizer',
    'RandomProjectionTokenizer',
]
