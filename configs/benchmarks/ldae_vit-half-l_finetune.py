# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning of an l-DAE ViT-1/2L at 256 px, by MAE's protocol.

Run:       tools/dist_train.sh configs/benchmarks/ldae_vit-half-l_finetune.py 8 \\
               --cfg-options model.backbone.init_cfg.checkpoint=CKPT
Batch:     8 processes x 128 images = 1024; lr = 1e-3 x 1024 / 256 = 4e-3, 100 epochs
Paper:     no figure for this row
Ours:      not yet measured
"""

_base_ = './ldae_vit-b_finetune.py'

# The paper doesn't fine-tune this size; layer-wise decay 0.85 belongs to its depth of 12.
model = dict(backbone=dict(arch='half-large'), head=dict(in_channels=1024))
