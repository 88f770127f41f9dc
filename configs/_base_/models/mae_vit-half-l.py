# SPDX-License-Identifier: Apache-2.0
"""MAE with 12 blocks of width 1024, the size that the l-DAE paper calls "ViT-1/2L"; mmpretrain has no name for it."""

_base_ = './mae_vit-b.py'

model = dict(
    backbone=dict(arch=dict(_delete_=True, embed_dims=1024, num_layers=12, num_heads=16, feedforward_channels=4096)),
    neck=dict(embed_dim=1024),
)
