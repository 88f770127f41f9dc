# SPDX-License-Identifier: Apache-2.0
"""Linear probe of a SimMIM ViT-L at 224 px, by MAE's protocol: mean of the patch tokens.

Run:       tools/dist_train.sh configs/benchmarks/simmim_vit-l_linear.py 8 \\
               --cfg-options model.backbone.init_cfg.checkpoint=CKPT
Batch:     8 processes x 2048 images = 16384; lr = 0.1 x 16384 / 256 = 6.4, 90 epochs
Paper:     no figure for this row
Ours:      not yet measured
"""

_base_ = './simmim_vit-b_linear.py'

model = dict(backbone=dict(arch='large', frozen_stages=24), neck=dict(input_features=1024), head=dict(in_channels=1024))
