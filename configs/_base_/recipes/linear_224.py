# SPDX-License-Identifier: Apache-2.0
"""A linear probe at 224 px by MAE's protocol, all but the model."""

_base_ = ['../datasets/imagenet_224_linear.py', '../schedules/linear_lars_90e.py', '../linear_runtime.py']
