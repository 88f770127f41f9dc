# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning at 224 px by MAE's protocol, all but the model."""

_base_ = ['../datasets/imagenet_224_finetune.py', '../schedules/finetune_100e.py', '../finetune_runtime.py']
