# SPDX-License-Identifier: Apache-2.0
"""MoCo v3, ViT-B, 224 px, 300 epochs: mmpretrain's mocov3_vit-base-p16_16xb256-amp-coslr-300e_in1k.py.

A test holds it equal to the installed package's; only the dataset's class differs, which reads any folder.

Run:       tools/dist_train.sh configs/mocov3/vit-b_300e.py 16
Batch:     16 processes x 256 images = 4096; lr = 1.5e-4 x 4096 / 256 = 2.4e-3
Cost:      300 epochs x 1.28 M images x 2 views x 196 tokens, through the encoder and its average
Paper:     76.7 linear, 83.2 fine-tuned (ImageNet top-1, MoCo v3)
Ours:      not yet measured
"""

_base_ = ['../_base_/models/mocov3_vit-b.py', '../_base_/recipes/mocov3_224_300e.py']
