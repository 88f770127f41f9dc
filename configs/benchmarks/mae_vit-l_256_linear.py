# SPDX-License-Identifier: Apache-2.0
"""Linear probe of an MAE ViT-L pre-trained at 256 px (mae/vit-l_256_*.py), by MAE's protocol.

Run:       tools/dist_train.sh configs/benchmarks/mae_vit-l_256_linear.py 8 \\
               --cfg-options model.backbone.init_cfg.checkpoint=CKPT
Batch:     8 processes x 2048 images = 16384; lr = 0.1 x 16384 / 256 = 6.4, 90 epochs
Paper:     no figure for this row
Ours:      not yet measured
"""

_base_ = ['../_base_/models/probe_mae_vit-l_256.py', '../_base_/recipes/linear_256.py']
