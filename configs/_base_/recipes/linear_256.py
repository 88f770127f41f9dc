# SPDX-License-Identifier: Apache-2.0
"""A linear probe at 256 px by MAE's protocol, all but the model."""

_base_ = ['../datasets/imagenet_256_linear.py', '../schedules/linear_lars_90e.py', '../linear_runtime.py']
