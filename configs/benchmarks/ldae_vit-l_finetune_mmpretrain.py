# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning of an l-DAE ViT-L by mmpretrain's protocol: 224 px, fp32, no EMA.

Run:       tools/dist_train.sh configs/benchmarks/ldae_vit-l_finetune_mmpretrain.py 8 \\
               --cfg-options model.backbone.init_cfg.checkpoint=CKPT
Batch:     8 processes x 128 images = 1024; lr = 4e-3, 50 epochs
Paper:     not its protocol
Ours:      not yet measured
"""

_base_ = ['../_base_/models/finetune_ldae.py', '../_base_/recipes/finetune_224_50e_mmpretrain.py']

model = dict(backbone=dict(arch='large', img_size=224, drop_path_rate=0.2), head=dict(in_channels=1024))
