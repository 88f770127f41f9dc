# SPDX-License-Identifier: Apache-2.0
"""MAE with ViT-L, as in mmpretrain."""

_base_ = './mae_vit-b.py'

model = dict(backbone=dict(arch='l'), neck=dict(embed_dim=1024))
