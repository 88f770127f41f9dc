# SPDX-License-Identifier: Apache-2.0
"""As probe_mae_256.py with ViT-L."""

_base_ = './probe_mae_256.py'

model = dict(backbone=dict(arch='large', frozen_stages=24), neck=dict(input_features=1024), head=dict(in_channels=1024))
