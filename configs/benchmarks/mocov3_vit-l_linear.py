# SPDX-License-Identifier: Apache-2.0
"""Linear probe of a MoCo v3 ViT-L at 224 px, by MAE's protocol: class token.

Run:       tools/dist_train.sh configs/benchmarks/mocov3_vit-l_linear.py 8 \\
               --cfg-options model.backbone.init_cfg.checkpoint=CKPT
Batch:     8 processes x 2048 images = 16384; lr = 0.1 x 16384 / 256 = 6.4, 90 epochs
Paper:     77.6 (300 epochs, by MoCo v3's protocol), ImageNet top-1
Ours:      not yet measured
"""

_base_ = './mocov3_vit-b_linear.py'

model = dict(backbone=dict(arch='large', frozen_stages=24), neck=dict(input_features=1024), head=dict(in_channels=1024))
