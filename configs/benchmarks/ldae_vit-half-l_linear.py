# SPDX-License-Identifier: Apache-2.0
"""Linear probe of an l-DAE ViT-1/2L at 256 px, by MAE's protocol.

Run:       tools/dist_train.sh configs/benchmarks/ldae_vit-half-l_linear.py 8 \\
               --cfg-options model.backbone.init_cfg.checkpoint=CKPT
Batch:     8 processes x 2048 images = 16384; lr = 0.1 x 16384 / 256 = 6.4, 90 epochs
Paper:     64.5 (400 epochs), 65.0 (random crop), 67.5 (800), 69.6 (1600), ImageNet top-1
Ours:      not yet measured
"""

_base_ = ['../_base_/models/probe_ldae_vit-half-l.py', '../_base_/recipes/linear_256.py']
