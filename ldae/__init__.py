# SPDX-License-Identifier: Apache-2.0
"""ldae: latent denoising autoencoders for self-supervised pre-training of Vision Transformers."""

from . import compat
from .version import __version__

compat.apply()

__all__ = ['__version__']
