# SPDX-License-Identifier: Apache-2.0
"""SimMIM's pre-training, all but the model: ImageNet at 224 px, 800 epochs."""

_base_ = ['../datasets/imagenet_224_simmim.py', '../schedules/simmim_800e.py', '../mae_runtime.py']
