# SPDX-License-Identifier: Apache-2.0
from .dit_block import AdaLNModulation, DiTBlock, LabelEmbed, TimestepEmbed, init_dit_weights, modulate
from .patch_embed import PatchEmbed
from .patches import AffinePatchMap, patch_view, patchify, unpatchify

__all__ = [
    'AdaLNModulation',
    'AffinePatchMap',
    'DiTBlock',
    'LabelEmbed',
    'PatchEmbed',
    'TimestepEmbed',
    'init_dit_weights',
    'modulate',
    'patch_view',
    'patchify',
    'unpatchify',
]
