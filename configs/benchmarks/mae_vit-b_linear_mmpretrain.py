# SPDX-License-Identifier: Apache-2.0
"""mmpretrain's linear probe of an MAE ViT-B (vit-base-p16_8xb2048-linear-coslr-90e_in1k.py).

Run:       tools/dist_train.sh configs/benchmarks/mae_vit-b_linear_mmpretrain.py 8 \\
               --cfg-options model.backbone.init_cfg.checkpoint=CKPT
Batch:     8 processes x 2048 images = 16384; lr = 6.4, 90 epochs
mmpretrain: 60.8, 62.5, 65.1, 67.1 for 300, 400, 800, 1600 epochs
Ours:      not yet measured
"""

_base_ = ['../_base_/models/probe_mae.py', '../_base_/recipes/linear_224_mmpretrain.py']
