# SPDX-License-Identifier: Apache-2.0
"""BYOL with ViT-B: mmpretrain's projection, prediction and loss on MoCo v3's encoder."""

model = dict(
    type='BYOL',
    base_momentum=0.01,
    backbone=dict(type='MoCoV3ViT', arch='base', img_size=224, patch_size=16, stop_grad_conv1=True),
    neck=dict(
        type='NonLinearNeck',
        in_channels=768,
        hid_channels=4096,
        out_channels=256,
        num_layers=2,
        with_bias=True,
        with_last_bn=False,
        with_avg_pool=False,
    ),
    head=dict(
        type='LatentPredictHead',
        predictor=dict(
            type='NonLinearNeck',
            in_channels=256,
            hid_channels=4096,
            out_channels=256,
            num_layers=2,
            with_bias=True,
            with_last_bn=False,
            with_avg_pool=False,
        ),
        loss=dict(type='CosineSimilarityLoss'),
    ),
)
