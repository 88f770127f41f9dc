# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning at 256 px with MAE's augmentation: random crop, flip, RandAugment (9, 0.5), random erasing.

128 images per process; with 8 processes that is MAE's batch of 1024.
"""

_base_ = './imagenet_256_linear.py'

rand_augment = dict(
    type='RandAugment',
    policies='timm_increasing',
    num_policies=2,
    total_level=10,
    magnitude_level=9,
    magnitude_std=0.5,
    hparams=dict(pad_val=[104, 116, 124], interpolation='bicubic'),
)
# Not in the papers' tables, but in MAE's published fine-tuning command.
random_erasing = dict(
    type='RandomErasing',
    erase_prob=0.25,
    mode='rand',
    min_area_ratio=0.02,
    max_area_ratio=1 / 3,
    fill_color=[103.53, 116.28, 123.675],
    fill_std=[57.375, 57.12, 58.395],
)

train_pipeline = [
    dict(type='ldae.LoadImage'),
    dict(type='RandomResizedCrop', scale=256, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    rand_augment,
    random_erasing,
    dict(type='PackInputs'),
]

train_dataloader = dict(batch_size=128, drop_last=False, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=128)
test_dataloader = dict(batch_size=128)
