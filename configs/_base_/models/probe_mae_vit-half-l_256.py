# SPDX-License-Identifier: Apache-2.0
"""As probe_mae_256.py with 12 blocks of width 1024, for which mmpretrain has no name."""

_base_ = './probe_mae_256.py'

model = dict(
    backbone=dict(arch=dict(_delete_=True, embed_dims=1024, num_layers=12, num_heads=16, feedforward_channels=4096)),
    neck=dict(input_features=1024),
    head=dict(in_channels=1024),
)
