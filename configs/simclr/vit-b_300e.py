# SPDX-License-Identifier: Apache-2.0
"""SimCLR, ViT-B, 224 px, 300 epochs: a recipe of ours, since mmpretrain's and the paper's are for ResNet-50.

Views, projection and loss are mmpretrain's of SimCLR; encoder, optimizer, schedule and batch are those of MoCo v3.

Run:       tools/dist_train.sh configs/simclr/vit-b_300e.py 16
Batch:     16 processes x 256 images = 4096; lr = 1.5e-4 x 4096 / 256 = 2.4e-3
Cost:      300 epochs x 1.28 M images x 2 views x 196 tokens, through the encoder
Paper:     no figure for this row
Ours:      not yet measured
"""

_base_ = ['../_base_/models/simclr_vit-b.py', '../_base_/recipes/simclr_224_300e.py']
