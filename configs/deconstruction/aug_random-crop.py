# SPDX-License-Identifier: Apache-2.0
"""Random resized crop instead of centre crop, still no flip.

Row:       random resized crop
Table:     augmentation
Paper:     linear 65.0
Run:       tools/dist_train.sh configs/deconstruction/aug_random-crop.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t3_5_original-image.py'

train_pipeline = [
    dict(type='ldae.LoadImage'),
    # The paper doesn't print the range of the crop; (0.2, 1) is MAE's.
    dict(type='RandomResizedCrop', scale=256, crop_ratio_range=(0.2, 1.0), backend='pillow', interpolation='bicubic'),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
