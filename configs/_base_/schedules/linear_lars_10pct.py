# SPDX-License-Identifier: Apache-2.0
"""Linear probe on 10% of the images: linear_lars_90e.py at batch 1024.

The papers have no such recipe. MAE's rate per image is kept; a batch of 16384 would leave 7 steps an epoch.
"""

_base_ = './linear_lars_90e.py'

optim_wrapper = dict(optimizer=dict(lr=0.1 * 1024 / 256))
auto_scale_lr = dict(base_batch_size=1024)
