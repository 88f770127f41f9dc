# SPDX-License-Identifier: Apache-2.0
"""l-DAE for 28 x 28 grey images: 16 patches of 7 x 7, PCA at d = 8, 3 + 3 blocks of width 96."""

_base_ = './ldae_vit-b.py'

model = dict(
    tokenizer=dict(img_size=28, patch_size=7, in_channels=1, latent_dim=8),
    backbone=dict(arch=dict(_delete_=True, embed_dims=96, num_layers=3, num_heads=3, feedforward_channels=384)),
)
