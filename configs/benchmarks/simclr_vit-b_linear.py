# SPDX-License-Identifier: Apache-2.0
"""Linear probe of a SimCLR ViT-B at 224 px, by MAE's protocol: class token.

Run:       tools/dist_train.sh configs/benchmarks/simclr_vit-b_linear.py 8 \\
               --cfg-options model.backbone.init_cfg.checkpoint=CKPT
Batch:     8 processes x 2048 images = 16384; lr = 0.1 x 16384 / 256 = 6.4, 90 epochs
Paper:     no figure for this row
Ours:      not yet measured
"""

_base_ = './mocov3_vit-b_linear.py'
