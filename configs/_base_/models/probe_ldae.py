# SPDX-License-Identifier: Apache-2.0
"""Linear probe of an l-DAE encoder: frozen, t = 10 merged in, averaged tokens, plain BatchNorm, one layer."""

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ldae.LDAEViT',
        arch='base',
        img_size=256,
        patch_size=16,
        conditioned=False,
        timestep=10,
        out_type='avg_featmap',
        pool_norm=False,
        frozen_stages=12,
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
    neck=dict(type='ClsBatchNormNeck', input_features=768),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=768,
        loss=dict(type='CrossEntropyLoss'),
        init_cfg=[dict(type='TruncNormal', layer='Linear', std=0.01)],
    ),
)
