# SPDX-License-Identifier: Apache-2.0
from .base import DenoisingHead
from .images import DecodedImageHead, OriginalImageHead
from .latents import CleanLatentHead, NoiseHead
