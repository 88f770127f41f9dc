# SPDX-License-Identifier: Apache-2.0
"""DINO's views for a ViT-B: two of 224 px and ten of 96 px; 32 images a process."""

_base_ = './imagenet_224_mocov3.py'

colours = [
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomApply',
        transforms=[dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)],
        prob=0.8,
    ),
    dict(type='RandomGrayscale', prob=0.2, keep_channels=True, channel_weights=(0.114, 0.587, 0.2989)),
]
whole = dict(
    type='RandomResizedCrop', scale=224, crop_ratio_range=(0.25, 1.0), backend='pillow', interpolation='bicubic'
)
part = dict(
    type='RandomResizedCrop', scale=96, crop_ratio_range=(0.05, 0.25), backend='pillow', interpolation='bicubic'
)
view_1 = [whole, *colours, dict(type='GaussianBlur', magnitude_range=(0.1, 2.0), magnitude_std='inf', prob=1.0)]
view_2 = [
    whole,
    *colours,
    dict(type='GaussianBlur', magnitude_range=(0.1, 2.0), magnitude_std='inf', prob=0.1),
    dict(type='Solarize', thr=128, prob=0.2),
]
view_3 = [part, *colours, dict(type='GaussianBlur', magnitude_range=(0.1, 2.0), magnitude_std='inf', prob=0.5)]
train_pipeline = [
    dict(type='ldae.LoadImage'),
    dict(type='MultiView', num_views=[1, 1, 10], transforms=[view_1, view_2, view_3]),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=32, dataset=dict(pipeline=train_pipeline))
