# SPDX-License-Identifier: Apache-2.0
"""Centre crop, and every other image flipped; the paper's road has no flip.

Row:       horizontal flip
Table:     augmentation
Paper:     none
Run:       tools/dist_train.sh configs/deconstruction/aug_flip.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t3_5_original-image.py'

train_pipeline = [
    dict(type='ldae.LoadImage'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=256),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
