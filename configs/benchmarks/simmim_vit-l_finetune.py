# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning of a SimMIM ViT-L at 224 px, with l-DAE's settings: mean of the patch tokens.

Run:       tools/dist_train.sh configs/benchmarks/simmim_vit-l_finetune.py 8 \\
               --cfg-options model.backbone.init_cfg.checkpoint=CKPT
Batch:     8 processes x 128 images = 1024; lr = 1e-3 x 1024 / 256 = 4e-3, 100 epochs
Paper:     no figure for this row
Ours:      not yet measured
"""

_base_ = './simmim_vit-b_finetune.py'

model = dict(backbone=dict(arch='large'), head=dict(in_channels=1024))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.65))
