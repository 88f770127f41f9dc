# SPDX-License-Identifier: Apache-2.0
"""Linear probe of an l-DAE ViT-B by mmpretrain's protocol: 224 px, bilinear, fp16.

Run:       tools/dist_train.sh configs/benchmarks/ldae_vit-b_linear_mmpretrain.py 8 \\
               --cfg-options model.backbone.init_cfg.checkpoint=CKPT
Batch:     8 processes x 2048 images = 16384; lr = 6.4, 90 epochs
Paper:     not its protocol
Ours:      not yet measured
"""

_base_ = ['../_base_/models/probe_ldae.py', '../_base_/recipes/linear_224_mmpretrain.py']

model = dict(backbone=dict(img_size=224), head=dict(type='VisionTransformerClsHead'))
