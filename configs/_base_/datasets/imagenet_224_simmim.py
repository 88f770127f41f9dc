# SPDX-License-Identifier: Apache-2.0
"""SimMIM's images: random crops of two thirds or more, and flips; 256 images a process. The model draws the masks."""

_base_ = './imagenet_224_mae.py'

train_pipeline = [
    dict(type='ldae.LoadImage'),
    dict(type='RandomResizedCrop', scale=224, crop_ratio_range=(0.67, 1.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=256, dataset=dict(pipeline=train_pipeline))
