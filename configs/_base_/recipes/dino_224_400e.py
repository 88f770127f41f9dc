# SPDX-License-Identifier: Apache-2.0
"""DINO's pre-training, all but the model: twelve views of an image, 400 epochs."""

_base_ = ['../datasets/imagenet_224_dino.py', '../schedules/dino_400e.py', '../joint_runtime.py']
