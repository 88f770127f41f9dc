# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning of an l-DAE ViT-B by mmpretrain's protocol: 224 px, fp32, no EMA.

Run:       tools/dist_train.sh configs/benchmarks/ldae_vit-b_finetune_mmpretrain.py 8 \\
               --cfg-options model.backbone.init_cfg.checkpoint=CKPT
Batch:     8 processes x 128 images = 1024; lr = 2e-3, 100 epochs
Paper:     not its protocol
Ours:      not yet measured
"""

_base_ = ['../_base_/models/finetune_ldae.py', '../_base_/recipes/finetune_224_100e_mmpretrain.py']

model = dict(backbone=dict(img_size=224))
