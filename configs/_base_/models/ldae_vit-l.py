# SPDX-License-Identifier: Apache-2.0
"""l-DAE with a 24 + 24 block ViT-L."""

_base_ = './ldae_vit-b.py'

model = dict(backbone=dict(arch='large'))
