# SPDX-License-Identifier: Apache-2.0
"""Linear probe as probe_mae.py, of the mean of the patch tokens."""

_base_ = './probe_mae.py'

model = dict(backbone=dict(out_type='avg_featmap'))
