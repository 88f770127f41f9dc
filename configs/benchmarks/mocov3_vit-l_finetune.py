# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning of a MoCo v3 ViT-L at 224 px, with l-DAE's settings: class token.

Run:       tools/dist_train.sh configs/benchmarks/mocov3_vit-l_finetune.py 8 \\
               --cfg-options model.backbone.init_cfg.checkpoint=CKPT
Batch:     8 processes x 128 images = 1024; lr = 1e-3 x 1024 / 256 = 4e-3, 100 epochs
Paper:     84.1 (300 epochs, by its own settings), ImageNet top-1
Ours:      not yet measured
"""

_base_ = './mocov3_vit-b_finetune.py'

model = dict(backbone=dict(arch='large'), head=dict(in_channels=1024))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.65))
