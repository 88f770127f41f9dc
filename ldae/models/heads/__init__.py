# SPDX-License-Identifier: Apache-2.0
from .base import DenoisingHead
from .latent import CleanLatentHead, LatentHead, NoiseHead
from .targets import DecodedImageHead, OriginalImageHead
