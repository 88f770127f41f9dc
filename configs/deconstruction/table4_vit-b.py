# SPDX-License-Identifier: Apache-2.0
"""ViT-B, 1600 epochs, random crop, with features at the time step, clean or noisy, that is best on held-out training images.

The paper says neither its time step nor whether images are noised here; its appendix A has 65.0 for both 10 and 40, noisy.

Row:       ViT-B, 1600 epochs, best t and input
Table:     table4
Paper:     linear 66.6
Run:       tools/dist_train.sh configs/deconstruction/table4_vit-b.py 8
Batch:     8 processes x 256 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './size_vit-b.py'

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, by_epoch=True, begin=0, end=100, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=1500, by_epoch=True, begin=100, end=1600, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=1600)

# Of features; a scale has time steps of its own.
timesteps = [0, 10, 20, 40, 80]
inputs = ['clean', 'noisy']
