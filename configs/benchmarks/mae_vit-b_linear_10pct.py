# SPDX-License-Identifier: Apache-2.0
"""Linear probe of an MAE ViT-B at 224 px, by MAE's protocol, on 10% of the labelled images of each class.

Run:       tools/dist_train.sh configs/benchmarks/mae_vit-b_linear_10pct.py 8 \\
               --cfg-options model.backbone.init_cfg.checkpoint=CKPT
Batch:     8 processes x 128 images = 1024; lr = 0.1 x 1024 / 256 = 0.4, 90 epochs
Paper:     no figure for this row
Ours:      not yet measured
"""

_base_ = ['../_base_/models/probe_mae.py', '../_base_/recipes/linear_224_10pct.py']
