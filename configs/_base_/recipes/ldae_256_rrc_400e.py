# SPDX-License-Identifier: Apache-2.0
"""l-DAE's pre-training, all but the model: ImageNet at 256 px, random resized crop, 400 epochs."""

_base_ = ['../datasets/imagenet_256_rrc.py', '../schedules/adamw_coslr_400e.py', '../ldae_runtime.py']
