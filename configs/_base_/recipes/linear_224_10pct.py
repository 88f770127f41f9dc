# SPDX-License-Identifier: Apache-2.0
"""A linear probe at 224 px on 10% of the images, all but the model."""

_base_ = ['../datasets/imagenet_224_linear_10pct.py', '../schedules/linear_lars_10pct.py', '../linear_runtime.py']
