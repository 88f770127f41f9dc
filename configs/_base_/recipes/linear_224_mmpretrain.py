# SPDX-License-Identifier: Apache-2.0
"""mmpretrain's linear probe, all but the model."""

_base_ = [
    '../datasets/imagenet_224_linear_mmpretrain.py',
    '../schedules/linear_lars_90e_mmpretrain.py',
    '../linear_runtime.py',
]
