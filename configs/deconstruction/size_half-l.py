# SPDX-License-Identifier: Apache-2.0
"""ViT-1/2L, 12 + 12 blocks of width 1024: the row with random resized crop, under the name of this comparison.

Row:       encoder ViT-1/2L
Table:     size
Paper:     linear 65.0
Run:       tools/dist_train.sh configs/deconstruction/size_half-l.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './aug_random-crop.py'
