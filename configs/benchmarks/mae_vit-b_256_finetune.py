# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning of an MAE ViT-B pre-trained at 256 px (mae/vit-b_256_*.py), with l-DAE's settings.

Run:       tools/dist_train.sh configs/benchmarks/mae_vit-b_256_finetune.py 8 \\
               --cfg-options model.backbone.init_cfg.checkpoint=CKPT
Batch:     8 processes x 128 images = 1024; lr = 1e-3 x 1024 / 256 = 4e-3, 100 epochs
Paper:     no figure for this row
Ours:      not yet measured
"""

_base_ = ['../_base_/models/finetune_mae.py', '../_base_/recipes/finetune_256.py']

model = dict(backbone=dict(img_size=256))
