# SPDX-License-Identifier: Apache-2.0
from .base import BaseTokenizer, Geometry
from .patch_pca import PatchPCATokenizer
from .streaming_covariance import StreamingCovariance

__all__ = ['BaseTokenizer', 'Geometry', 'PatchPCATokenizer', 'StreamingCovariance']
