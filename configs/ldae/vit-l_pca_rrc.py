# SPDX-License-Identifier: Apache-2.0
"""l-DAE, ViT-L, 24 + 24 blocks, patch-wise PCA at d = 32, random resized crop, 400 epochs.

Run:       tools/dist_train.sh configs/ldae/vit-l_pca_rrc.py 8
Batch:     8 processes x 4 x 64 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
Cost:      400 epochs x 1.28 M images x 256 tokens = 131 G tokens through encoder and decoder.
Paper:     70.9 linear (ImageNet top-1)
Ours:      not yet measured
"""

_base_ = ['../_base_/models/ldae_vit-l.py', '../_base_/recipes/ldae_256_rrc_400e.py']

# On a GPU of 80 GB; 4 such batches make a step.
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(accumulative_counts=4)
