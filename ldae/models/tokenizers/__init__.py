# SPDX-License-Identifier: Apache-2.0
from .base import BaseTokenizer, Geometry
from .conv_vae import ConvVAETokenizer
from .fixed_basis import DCTTokenizer, FixedBasisTokenizer, RandomProjectionTokenizer
from .learned import Gaussian, LearnedTokenizer, Reconstruction, TrainableNet
from .patch_ae import PatchAETokenizer, PatchVAETokenizer
from .patch_linear import PatchLinearTokenizer, PixelNormalization, open_tokenizer
from .patch_pca import PatchPCATokenizer
from .pixel import PixelTokenizer
from .streaming_covariance import PixelCovariance, StreamingCovariance
