# SPDX-License-Identifier: Apache-2.0
"""MAE's pre-training as in mmpretrain, all but the model: ImageNet at 224 px, 1600 epochs."""

_base_ = ['../datasets/imagenet_224_mae.py', '../schedules/mae_1600e.py', '../mae_runtime.py']
