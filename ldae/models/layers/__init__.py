# SPDX-License-Identifier: Apache-2.0
from .dit_block import (
    AdaLNModulation,
    DiTBlock,
    LabelEmbed,
    TimestepEmbed,
    attend,
    attend_fastest,
    init_dit_weights,
    modulate,
)
from .patch_embed import PatchEmbed
from .patches import AffinePatchMap, patch_view, patchify, unpatchify
