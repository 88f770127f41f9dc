# SPDX-License-Identifier: Apache-2.0
"""ldae: latent denoising autoencoders for self-supervised pre-training of Vision Transformers."""

from . import compat
from .config.paths import find_config as _find_config
from .utils.lazy import lazy_names
from .version import __version__

compat.apply(_find_config)

_OWNERS = dict(
    FeatureExtractor='ldae.apis',
    ablate='ldae.ablation',
    benchmark='ldae.launch',
    compare='ldae.ablation',
    demo='ldae.ablation',
    denoise='ldae.generation',
    evaluate='ldae.launch',
    frechet_distance='ldae.generation',
    get_model='ldae.apis',
    list_models='ldae.apis',
    load_config_of='ldae.apis',
    probe='ldae.apis',
    sample='ldae.generation',
    train='ldae.launch',
)
__all__ = ['__version__', *_OWNERS]
__getattr__, __dir__ = lazy_names(__name__, _OWNERS)
