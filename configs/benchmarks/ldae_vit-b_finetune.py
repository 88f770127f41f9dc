# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning of an l-DAE ViT-B at 256 px, by MAE's protocol.

Run:       tools/dist_train.sh configs/benchmarks/ldae_vit-b_finetune.py 8 \\
               --cfg-options model.backbone.init_cfg.checkpoint=CKPT
Batch:     8 processes x 128 images = 1024; lr = 1e-3 x 1024 / 256 = 4e-3, 100 epochs
Paper:     83.7 (1600 epochs, random crop), ImageNet top-1
Ours:      not yet measured
"""

_base_ = ['../_base_/models/finetune_ldae.py', '../_base_/recipes/finetune_256.py']
