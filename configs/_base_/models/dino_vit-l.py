# SPDX-License-Identifier: Apache-2.0
"""As dino_vit-b.py with ViT-L."""

_base_ = './dino_vit-b.py'

model = dict(backbone=dict(arch='large'), neck=dict(in_channels=1024))
