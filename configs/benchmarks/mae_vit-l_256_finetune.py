# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning of an MAE ViT-L pre-trained at 256 px (mae/vit-l_256_*.py), with l-DAE's settings.

Run:       tools/dist_train.sh configs/benchmarks/mae_vit-l_256_finetune.py 8 \\
               --cfg-options model.backbone.init_cfg.checkpoint=CKPT
Batch:     8 processes x 128 images = 1024; lr = 1e-3 x 1024 / 256 = 4e-3, 100 epochs
Paper:     no figure for this row
Ours:      not yet measured
"""

_base_ = './mae_vit-b_256_finetune.py'

model = dict(backbone=dict(arch='large'), head=dict(in_channels=1024))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.65))
