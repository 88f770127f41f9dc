# SPDX-License-Identifier: Apache-2.0
"""As adamw_coslr_400e.py, for 1600 epochs; still 100 of them warm-up."""

_base_ = './adamw_coslr_400e.py'

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, by_epoch=True, begin=0, end=100, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=1500, by_epoch=True, begin=100, end=1600, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=1600)
