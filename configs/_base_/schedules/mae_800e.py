# SPDX-License-Identifier: Apache-2.0
"""As mae_300e.py, for 800 epochs; warm-up from 1e-9 of the rate, as mmpretrain has it."""

_base_ = './mae_300e.py'

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, by_epoch=True, begin=0, end=40, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=760, by_epoch=True, begin=40, end=800, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=800)
