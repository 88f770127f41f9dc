# SPDX-License-Identifier: Apache-2.0
"""Linear probe of an MAE ViT-L at 224 px, by MAE's protocol, on 1% of the labelled images of each class.

Run:       tools/dist_train.sh configs/benchmarks/mae_vit-l_linear_1pct.py 8 \\
               --cfg-options model.backbone.init_cfg.checkpoint=CKPT
Batch:     8 processes x 128 images = 1024; lr = 0.1 x 1024 / 256 = 0.4, 500 epochs
Paper:     no figure for this row
Ours:      not yet measured
"""

_base_ = './mae_vit-b_linear_1pct.py'

model = dict(backbone=dict(arch='large', frozen_stages=24), neck=dict(input_features=1024), head=dict(in_channels=1024))
