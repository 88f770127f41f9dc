# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning of an l-DAE ViT-1/2L by mmpretrain's protocol: 224 px, fp32, no EMA.

Run:       tools/dist_train.sh configs/benchmarks/ldae_vit-half-l_finetune_mmpretrain.py 8 \\
               --cfg-options model.backbone.init_cfg.checkpoint=CKPT
Batch:     8 processes x 128 images = 1024; lr = 4e-3, 50 epochs
Paper:     not its protocol
Ours:      not yet measured
"""

_base_ = './ldae_vit-l_finetune_mmpretrain.py'

model = dict(backbone=dict(arch='half-large'))
