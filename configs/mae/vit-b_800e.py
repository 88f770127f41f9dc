# SPDX-License-Identifier: Apache-2.0
"""MAE, ViT-B, 224 px, 800 epochs: mmpretrain's mae_vit-base-p16_8xb512-amp-coslr-800e_in1k.py.

A test holds it equal to the installed package's; only the dataset's class differs, which reads any folder.

Run:       tools/dist_train.sh configs/mae/vit-b_800e.py 8
Batch:     8 processes x 512 images = 4096; lr = 1.5e-4 x 4096 / 256 = 2.4e-3
Cost:      800 epochs x 1.28 M images x 196 tokens, a quarter of them through the encoder
mmpretrain: 65.1 linear, 83.3 fine-tuned by its protocol
Ours:      not yet measured
"""

_base_ = ['../_base_/models/mae_vit-b.py', '../_base_/recipes/mae_224_800e.py']
