# SPDX-License-Identifier: Apache-2.0
"""mmpretrain's fine-tuning for 100 epochs, all but the model."""

_base_ = ['../datasets/imagenet_224_finetune.py', '../schedules/finetune_100e_mmpretrain.py', '../default_runtime.py']
