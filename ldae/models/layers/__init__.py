# SPDX-License-Identifier: Apache-2.0
from .attention import attend, attend_fastest
from .dit_block import AdaLNModulation, DiTBlock, LabelEmbed, TimestepEmbed, init_dit_weights, modulate
from .patch_embed import PatchEmbed
from .patches import AffinePatchMap, patch_view, patchify, unpatchify
