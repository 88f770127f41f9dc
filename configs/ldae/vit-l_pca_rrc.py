# SPDX-License-Identifier: Apache-2.0
"""l-DAE, ViT-L, 24 + 24 blocks, patch-wise PCA at d = 32, random resized crop, 400 epochs.

Run:       tools/dist_train.sh configs/ldae/vit-l_pca_rrc.py 8
Batch:     8 processes x 256 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
Cost:      400 epochs x 1.28 M images x 256 tokens = 131 G tokens through encoder and decoder.
           Where 256 images don't fit on a GPU: --keep-batch --cfg-options train_dataloader.batch_size=128
Paper:     70.9 linear (ImageNet top-1)
Ours:      not yet measured
"""

_base_ = ['../_base_/models/ldae_vit-l.py', '../_base_/recipes/ldae_256_rrc_400e.py']
