# SPDX-License-Identifier: Apache-2.0
"""MAE, ViT-B, on l-DAE's data (256 px, random resized crop, no flip), 1600 epochs.

To compare with ldae/vit-b_pca_rrc_1600e.py on the same images; batch and schedule are MAE's own.

Run:       tools/dist_train.sh configs/mae/vit-b_256_1600e.py 8
Batch:     8 processes x 512 images = 4096; lr = 1.5e-4 x 4096 / 256 = 2.4e-3
Cost:      1600 epochs x 1.28 M images x 256 tokens, a quarter of them through the encoder
Paper:     no figure for this row
Ours:      not yet measured
"""

_base_ = ['../_base_/models/mae_vit-b_256.py', '../_base_/recipes/mae_256_1600e.py']
