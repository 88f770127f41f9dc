# SPDX-License-Identifier: Apache-2.0
"""mmpretrain's fine-tuning of an MAE ViT-B (vit-base-p16_8xb128-coslr-100e_in1k.py).

Run:       tools/dist_train.sh configs/benchmarks/mae_vit-b_finetune_mmpretrain.py 8 \\
               --cfg-options model.backbone.init_cfg.checkpoint=CKPT
Batch:     8 processes x 128 images = 1024; lr = 2e-3, 100 epochs
mmpretrain: 83.1, 83.3, 83.3, 83.5 for 300, 400, 800, 1600 epochs
Ours:      not yet measured
"""

_base_ = ['../_base_/models/finetune_mae.py', '../_base_/recipes/finetune_224_100e_mmpretrain.py']
