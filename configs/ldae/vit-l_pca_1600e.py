# SPDX-License-Identifier: Apache-2.0
"""l-DAE, ViT-L, 24 + 24 blocks, patch-wise PCA at d = 32, centre crop, 1600 epochs.

Run:       tools/dist_train.sh configs/ldae/vit-l_pca_1600e.py 8
Batch:     8 processes x 4 x 64 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
Cost:      1600 epochs x 1.28 M images x 256 tokens = 525 G tokens through encoder and decoder.
Paper:     no figure for this row
Ours:      not yet measured
"""

_base_ = ['../_base_/models/ldae_vit-l.py', '../_base_/recipes/ldae_256_1600e.py']

# On a GPU of 80 GB; 4 such batches make a step.
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(accumulative_counts=4)
