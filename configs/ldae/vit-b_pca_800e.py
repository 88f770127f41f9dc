# SPDX-License-Identifier: Apache-2.0
"""l-DAE, ViT-B, 12 + 12 blocks, patch-wise PCA at d = 32, centre crop, 800 epochs.

Run:       tools/dist_train.sh configs/ldae/vit-b_pca_800e.py 8
Batch:     8 processes x 256 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
Cost:      800 epochs x 1.28 M images x 256 tokens = 262 G tokens through encoder and decoder
Paper:     no figure for this row
Ours:      not yet measured
"""

_base_ = ['../_base_/models/ldae_vit-b.py', '../_base_/recipes/ldae_256_800e.py']
