# SPDX-License-Identifier: Apache-2.0
"""ldae: latent denoising autoencoders for self-supervised pre-training of Vision Transformers."""

from . import compat
from .config.reading import find_config as _find_config
from .utils.optional import lazy_names
from .version import __version__

compat.apply(_find_config)

_OWNERS = {
    'ldae.ablation': ('ablate', 'compare', 'demo'),
    'ldae.apis': (
        'FeatureExtractor',
        'get_encoder',
        'get_model',
        'bound',
        'list_models',
        'load_config_of',
        'probe',
        'segment',
    ),
    'ldae.generation': ('denoise', 'frechet_distance', 'sample'),
    'ldae.launch': ('benchmark', 'evaluate', 'train'),
    'ldae.reports': ('Run', 'figures', 'report'),
}
__all__ = ['__version__', *sorted(name for names in _OWNERS.values() for name in names)]
__getattr__, __dir__ = lazy_names(__name__, _OWNERS)
