# SPDX-License-Identifier: Apache-2.0
"""Linear probe on 1% of the images: linear_lars_90e.py at batch 1024, 500 epochs, 50 of them warm-up.

The papers have no such recipe. MAE's rate per image is kept; a batch of 16384 would be more than there are images.
"""

_base_ = './linear_lars_90e.py'

optim_wrapper = dict(optimizer=dict(lr=0.1 * 1024 / 256))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, by_epoch=True, begin=0, end=50, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=450, by_epoch=True, begin=50, end=500, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=500, val_interval=50)
auto_scale_lr = dict(base_batch_size=1024)
