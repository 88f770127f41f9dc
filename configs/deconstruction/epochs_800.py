# SPDX-License-Identifier: Apache-2.0
"""800 epochs, still 100 of them warm-up.

Row:       800 epochs
Table:     epochs
Paper:     linear 67.5
Run:       tools/dist_train.sh configs/deconstruction/epochs_800.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './epochs_400.py'

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, by_epoch=True, begin=0, end=100, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=700, by_epoch=True, begin=100, end=800, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=800)
