# SPDX-License-Identifier: Apache-2.0
"""ViT-B, 12 + 12 blocks of width 768.

Row:       encoder ViT-B
Table:     size
Paper:     linear 60.3
Run:       tools/dist_train.sh configs/deconstruction/size_vit-b.py 8
Batch:     8 processes x 256 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './size_half-l.py'

model = dict(backbone=dict(arch='base'))

# Fits on a GPU of 80 GB.
train_dataloader = dict(batch_size=256)
optim_wrapper = dict(accumulative_counts=1)
