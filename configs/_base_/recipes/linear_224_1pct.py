# SPDX-License-Identifier: Apache-2.0
"""A linear probe at 224 px on 1% of the images, all but the model."""

_base_ = ['../datasets/imagenet_224_linear_1pct.py', '../schedules/linear_lars_1pct.py', '../linear_runtime.py']
