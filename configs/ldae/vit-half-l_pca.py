# SPDX-License-Identifier: Apache-2.0
"""l-DAE, ViT-1/2L, 12 + 12 blocks of width 1024, patch-wise PCA at d = 32: the paper's recipe.

Run:       tools/dist_train.sh configs/ldae/vit-half-l_pca.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
Cost:      400 epochs x 1.28 M images x 256 tokens = 131 G tokens through encoder and decoder;
           12 h on 256 TPU-v3 cores in the paper
Paper:     64.5 linear (ImageNet top-1)
Ours:      not yet measured
"""

_base_ = ['../_base_/models/ldae_vit-half-l.py', '../_base_/recipes/ldae_256_400e.py']

# On a GPU of 80 GB; 2 such batches make a step.
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(accumulative_counts=2)
