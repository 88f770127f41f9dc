# SPDX-License-Identifier: Apache-2.0
"""l-DAE, ViT-B, 12 + 12 blocks, PCA at d = 32, random resized crop, 1600 epochs: the final comparison.

Run:       tools/dist_train.sh configs/ldae/vit-b_pca_rrc_1600e.py 8
Batch:     8 processes x 256 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
Cost:      1600 epochs x 1.28 M images x 256 tokens = 525 G tokens through encoder and decoder
Paper:     66.6 linear, 83.7 fine-tuned (ImageNet top-1)
Ours:      not yet measured
"""

_base_ = ['../_base_/models/ldae_vit-b.py', '../_base_/recipes/ldae_256_rrc_1600e.py']
