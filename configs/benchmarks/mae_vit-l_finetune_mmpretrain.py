# SPDX-License-Identifier: Apache-2.0
"""mmpretrain's fine-tuning of an MAE ViT-L (vit-large-p16_8xb128-coslr-50e_in1k.py).

Run:       tools/dist_train.sh configs/benchmarks/mae_vit-l_finetune_mmpretrain.py 8 \\
               --cfg-options model.backbone.init_cfg.checkpoint=CKPT
Batch:     8 processes x 128 images = 1024; lr = 4e-3, 50 epochs
Paper:     not its protocol
Ours:      not yet measured
"""

_base_ = ['../_base_/models/finetune_mae.py', '../_base_/recipes/finetune_224_50e_mmpretrain.py']

model = dict(backbone=dict(arch='large', drop_path_rate=0.2), head=dict(in_channels=1024))
