# SPDX-License-Identifier: Apache-2.0
"""As probe_mae.py at 256 px."""

_base_ = './probe_mae.py'

model = dict(backbone=dict(img_size=256))
