# SPDX-License-Identifier: Apache-2.0
"""MAE's pre-training on l-DAE's data, all but the model: 256 px, random resized crop, no flip, 1600 epochs."""

_base_ = ['../datasets/imagenet_256_mae.py', '../schedules/mae_1600e.py', '../mae_runtime.py']
