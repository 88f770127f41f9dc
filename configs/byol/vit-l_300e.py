# SPDX-License-Identifier: Apache-2.0
"""BYOL, ViT-L, 224 px, 300 epochs: a recipe of ours, since mmpretrain's and the paper's are for ResNet-50.

Views, projection and prediction and loss are mmpretrain's of BYOL; encoder, optimizer, schedule and batch are those of MoCo v3.

Run:       tools/dist_train.sh configs/byol/vit-l_300e.py 64
Batch:     64 processes x 64 images = 4096; lr = 1.5e-4 x 4096 / 256 = 2.4e-3
Cost:      300 epochs x 1.28 M images x 2 views x 196 tokens, through the encoder and its average
Paper:     no figure for this row
Ours:      not yet measured
"""

_base_ = ['../_base_/models/byol_vit-l.py', '../_base_/recipes/byol_224_300e.py']

train_dataloader = dict(batch_size=64)
optim_wrapper = dict(clip_grad=dict(max_norm=5.0, error_if_nonfinite=False))
