# SPDX-License-Identifier: Apache-2.0
"""Linear probe of an MAE ViT-1/2L pre-trained at 256 px, on 1% of the labelled images of each class.

Run:       tools/dist_train.sh configs/benchmarks/mae_vit-half-l_256_linear_1pct.py 8 \\
               --cfg-options model.backbone.init_cfg.checkpoint=CKPT
Batch:     8 processes x 128 images = 1024; lr = 0.1 x 1024 / 256 = 0.4, 500 epochs
Paper:     no figure for this row
Ours:      not yet measured
"""

_base_ = ['../_base_/models/probe_mae_vit-half-l_256.py', '../_base_/recipes/linear_256_1pct.py']
