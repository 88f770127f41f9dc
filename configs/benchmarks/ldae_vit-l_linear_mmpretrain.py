# SPDX-License-Identifier: Apache-2.0
"""Linear probe of an l-DAE ViT-L by mmpretrain's protocol: 224 px, bilinear, fp16.

Run:       tools/dist_train.sh configs/benchmarks/ldae_vit-l_linear_mmpretrain.py 8 \\
               --cfg-options model.backbone.init_cfg.checkpoint=CKPT
Batch:     8 processes x 2048 images = 16384; lr = 6.4, 90 epochs
Paper:     not its protocol
Ours:      not yet measured
"""

_base_ = './ldae_vit-b_linear_mmpretrain.py'

model = dict(backbone=dict(arch='large', frozen_stages=24), neck=dict(input_features=1024), head=dict(in_channels=1024))
