# SPDX-License-Identifier: Apache-2.0
"""ldae: latent denoising autoencoders for self-supervised pre-training of Vision Transformers."""

from . import compat
from .version import __version__

compat.apply()

# What ldae.apis has is imported when it is asked for: torch and mmpretrain take seconds.
_APIS = ('FeatureExtractor', 'denoise', 'get_model', 'list_models', 'load_config_of')

__all__ = ['__version__', *_APIS]


def __getattr__(name: str):
    if name not in _APIS:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from . import apis

    return getattr(apis, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_APIS})
