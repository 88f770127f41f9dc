# SPDX-License-Identifier: Apache-2.0
"""SimMIM, ViT-L, 224 px, 800 epochs: the recipe of ViT-B, ours for this size, on a plain ViT.

Theirs: masks, crops, decoder, loss, batch, peak rate, warm-up, weight decay, length. Ours: learned positions in place of shared
relative ones, no layer scale, and a cosine where theirs drops once.

Run:       tools/dist_train.sh configs/simmim/vit-l_800e.py 16
Batch:     16 processes x 128 images = 2048; lr = 1e-4 x 2048 / 512 = 4e-4
Cost:      800 epochs x 1.28 M images x 196 tokens
Paper:     no figure for this row
Ours:      not yet measured
"""

_base_ = ['../_base_/models/simmim_vit-l.py', '../_base_/recipes/simmim_224_800e.py']

train_dataloader = dict(batch_size=128)
