# SPDX-License-Identifier: Apache-2.0
"""MAE, ViT-L, 224 px, 300 epochs: mmpretrain's mae_vit-large-p16_8xb512-amp-coslr-300e_in1k.py.

A test holds it equal to the installed package's; only the dataset's class differs, which reads any folder.

Run:       tools/dist_train.sh configs/mae/vit-l_300e.py 8
Batch:     8 processes x 512 images = 4096; lr = 1.5e-4 x 4096 / 256 = 2.4e-3
Cost:      300 epochs x 1.28 M images x 196 tokens, a quarter of them through the encoder
Ours:      not yet measured
"""

_base_ = ['../_base_/models/mae_vit-l.py', '../_base_/recipes/mae_224_300e.py']
