# SPDX-License-Identifier: Apache-2.0
"""400 epochs: the row with random resized crop, under the name of this comparison.

Row:       400 epochs
Table:     epochs
Paper:     linear 65.0
Run:       tools/dist_train.sh configs/deconstruction/epochs_400.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './aug_random-crop.py'
