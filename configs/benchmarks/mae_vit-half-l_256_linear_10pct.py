# SPDX-License-Identifier: Apache-2.0
"""Linear probe of an MAE ViT-1/2L pre-trained at 256 px, on 10% of the labelled images of each class.

Run:       tools/dist_train.sh configs/benchmarks/mae_vit-half-l_256_linear_10pct.py 8 \\
               --cfg-options model.backbone.init_cfg.checkpoint=CKPT
Batch:     8 processes x 128 images = 1024; lr = 0.1 x 1024 / 256 = 0.4, 90 epochs
Paper:     no figure for this row
Ours:      not yet measured
"""

_base_ = './mae_vit-b_256_linear_10pct.py'

model = dict(
    backbone=dict(
        # A name is replaced by a dict.
        arch=dict(_delete_=True, embed_dims=1024, num_layers=12, num_heads=16, feedforward_channels=4096),
    ),
    neck=dict(input_features=1024),
    head=dict(in_channels=1024),
)
