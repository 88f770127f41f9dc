# SPDX-License-Identifier: Apache-2.0
"""As probe_ldae.py with ViT-L."""

_base_ = './probe_ldae.py'

model = dict(backbone=dict(arch='large', frozen_stages=24), neck=dict(input_features=1024), head=dict(in_channels=1024))
