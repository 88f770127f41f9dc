# SPDX-License-Identifier: Apache-2.0
"""BYOL's pre-training, all but the model: two views at 224 px, batch 4096, 300 epochs."""

_base_ = ['../datasets/imagenet_224_byol.py', '../schedules/mocov3_300e.py', '../joint_runtime.py']
