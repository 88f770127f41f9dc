# SPDX-License-Identifier: Apache-2.0
"""SimMIM, ViT-B, 224 px, 800 epochs: its authors' recipe for a ViT-B, on a plain ViT.

Theirs: masks, crops, decoder, loss, batch, peak rate, warm-up, weight decay, length. Ours: learned positions in place of shared
relative ones, no layer scale, and a cosine where theirs drops once.

Run:       tools/dist_train.sh configs/simmim/vit-b_800e.py 8
Batch:     8 processes x 256 images = 2048; lr = 1e-4 x 2048 / 512 = 4e-4
Cost:      800 epochs x 1.28 M images x 196 tokens
Paper:     no figure for this row
Ours:      not yet measured
"""

_base_ = ['../_base_/models/simmim_vit-b.py', '../_base_/recipes/simmim_224_800e.py']
