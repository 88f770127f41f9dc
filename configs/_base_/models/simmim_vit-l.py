# SPDX-License-Identifier: Apache-2.0
"""As simmim_vit-b.py with ViT-L."""

_base_ = './simmim_vit-b.py'

model = dict(backbone=dict(arch='large'), neck=dict(in_channels=1024))
