# SPDX-License-Identifier: Apache-2.0
from .base import DenoisingHead
from .targets import CleanLatentHead, DecodedImageHead, NoiseHead, OriginalImageHead
