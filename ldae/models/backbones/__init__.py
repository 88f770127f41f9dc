# SPDX-License-Identifier: Apache-2.0
from .ldae_vit import LDAEViT, merge_conditioning
