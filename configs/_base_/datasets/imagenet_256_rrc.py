# SPDX-License-Identifier: Apache-2.0
"""As imagenet_256_center.py, trained on random resized crops (still no flip)."""

_base_ = './imagenet_256_center.py'

train_pipeline = [
    dict(type='ldae.LoadImage'),
    # The paper doesn't print the range of the crop; (0.2, 1) is MAE's.
    dict(type='RandomResizedCrop', scale=256, crop_ratio_range=(0.2, 1.0), backend='pillow', interpolation='bicubic'),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
