# SPDX-License-Identifier: Apache-2.0
"""Linear probe of an l-DAE ViT-B at 256 px, by MAE's protocol.

Run:       tools/dist_train.sh configs/benchmarks/ldae_vit-b_linear.py 8 \\
               --cfg-options model.backbone.init_cfg.checkpoint=CKPT
Batch:     8 processes x 2048 images = 16384; lr = 0.1 x 16384 / 256 = 6.4, 90 epochs
Paper:     60.3 (400 epochs, random crop), 66.6 (1600), ImageNet top-1
Ours:      not yet measured
"""

_base_ = ['../_base_/models/probe_ldae.py', '../_base_/recipes/linear_256.py']
