# SPDX-License-Identifier: Apache-2.0
"""ImageNet-1k, or any folder of images, at 256 px: centre crop, no flip, labels not read.

256 images per process; with 8 processes that is the paper's batch of 2048. The validation split gives the
denoising loss and PSNR by noise level while pre-training.
"""

data_root = 'data/imagenet'
data_preprocessor = dict(
    type='SelfSupDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
)

train_pipeline = [
    dict(type='ldae.LoadImage'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=256),
    dict(type='PackInputs'),
]
test_pipeline = train_pipeline

train_dataloader = dict(
    batch_size=256,
    num_workers=12,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ldae.ImageFolder', data_root=data_root, split='train', with_label=False, pipeline=train_pipeline
    ),
)

val_dataloader = dict(
    batch_size=256,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='ldae.ImageFolder', data_root=data_root, split='val', with_label=False, pipeline=test_pipeline),
)
val_cfg = dict()
val_evaluator = dict(type='ldae.DenoisingMetric')

test_dataloader = val_dataloader
test_cfg = val_cfg
test_evaluator = val_evaluator
