# SPDX-License-Identifier: Apache-2.0
from .base import BaseTokenizer, Geometry
from .fixed_basis import DCTTokenizer, FixedBasisTokenizer, RandomProjectionTokenizer
from .patch_linear import PatchLinearTokenizer
from .patch_pca import PatchPCATokenizer
from .pixel import PixelTokenizer
from .streaming_covariance import StreamingCovariance

__all__ = [
    'BaseTokenizer',
    'DCTTokenizer',
    'FixedBasisTokenizer',
    'Geometry',
    'PatchLinearTokenizer',
    'PatchPCATokenizer',
    'PixelTokenizer',
    'RandomProjectionTokenizer',
    'StreamingCovariance',
]
