# SPDX-License-Identifier: Apache-2.0
"""ViT-L, 24 + 24 blocks of width 1024.

Row:       encoder ViT-L
Table:     size
Paper:     linear 70.9
Run:       tools/dist_train.sh configs/deconstruction/size_vit-l.py 8
Batch:     8 processes x 4 x 64 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './size_half-l.py'

model = dict(backbone=dict(arch='large'))

# On a GPU of 80 GB; 4 such batches make a step.
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(accumulative_counts=4)
