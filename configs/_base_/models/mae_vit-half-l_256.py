# SPDX-License-Identifier: Apache-2.0
"""As mae_vit-half-l.py at 256 px."""

_base_ = './mae_vit-half-l.py'

model = dict(backbone=dict(img_size=256), neck=dict(num_patches=256))
