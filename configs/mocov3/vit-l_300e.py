# SPDX-License-Identifier: Apache-2.0
"""MoCo v3, ViT-L, 224 px, 300 epochs: mmpretrain's mocov3_vit-large-p16_64xb64-amp-coslr-300e_in1k.py.

A test holds it equal to the installed package's; only the dataset's class differs, which reads any folder.

Run:       tools/dist_train.sh configs/mocov3/vit-l_300e.py 64
Batch:     64 processes x 64 images = 4096; lr = 1.5e-4 x 4096 / 256 = 2.4e-3
Cost:      300 epochs x 1.28 M images x 2 views x 196 tokens, through the encoder and its average
Paper:     77.6 linear, 84.1 fine-tuned (ImageNet top-1, MoCo v3)
Ours:      not yet measured
"""

_base_ = ['../_base_/models/mocov3_vit-l.py', '../_base_/recipes/mocov3_224_300e.py']

train_dataloader = dict(batch_size=64)
optim_wrapper = dict(clip_grad=dict(max_norm=5.0, error_if_nonfinite=False))
