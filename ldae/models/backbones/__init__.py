# SPDX-License-Identifier: Apache-2.0
from .ldae_vit import LDAEViT
from .merge import merge_conditioning
