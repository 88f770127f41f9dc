# SPDX-License-Identifier: Apache-2.0
"""DINO, ViT-L, 224 px, 400 epochs: the recipe of ViT-B, ours for this size, by lightly's loss and projection head.

Needs lightly, the extra `dino`. Theirs: views, temperatures, momentum, prototypes, batch, peak rate, clipping, warm-up and
length. Weight decay stays at 0.1 where theirs rises from 0.04 to 0.4, and the steps of the views are mmpretrain's.

Run:       tools/dist_train.sh configs/dino/vit-l_400e.py 64
Batch:     64 processes x 16 images = 1024; lr = 7.5e-4 x 1024 / 256 = 3e-3
Cost:      400 epochs x 1.28 M images x (2 x 196 + 10 x 36) tokens through the encoder, 2 x 196 through its average
Paper:     no figure for this row
Ours:      not yet measured
"""

_base_ = ['../_base_/models/dino_vit-l.py', '../_base_/recipes/dino_224_400e.py']

train_dataloader = dict(batch_size=16)
