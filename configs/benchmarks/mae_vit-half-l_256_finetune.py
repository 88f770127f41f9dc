# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning of an MAE ViT-1/2L pre-trained at 256 px (mae/vit-half-l_256_*.py), with l-DAE's settings.

Run:       tools/dist_train.sh configs/benchmarks/mae_vit-half-l_256_finetune.py 8 \\
               --cfg-options model.backbone.init_cfg.checkpoint=CKPT
Batch:     8 processes x 128 images = 1024; lr = 1e-3 x 1024 / 256 = 4e-3, 100 epochs
Paper:     no figure for this row
Ours:      not yet measured
"""

_base_ = './mae_vit-b_256_finetune.py'

# Layer-wise decay 0.85 belongs to a depth of 12.
model = dict(
    backbone=dict(
        # A name is replaced by a dict.
        arch=dict(_delete_=True, embed_dims=1024, num_layers=12, num_heads=16, feedforward_channels=4096)
    ),
    head=dict(in_channels=1024),
)
