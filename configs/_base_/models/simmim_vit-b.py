# SPDX-License-Identifier: Apache-2.0
"""SimMIM with ViT-B: 60% of the squares of 32 x 32 pixels masked, one linear layer back to pixels, their mean difference."""

model = dict(
    type='ldae.SimMIM',
    backbone=dict(
        type='ldae.SimMIMViT',
        arch='base',
        img_size=224,
        patch_size=16,
        mask_patch_size=32,
        mask_ratio=0.6,
        drop_path_rate=0.1,
        out_type='featmap',
    ),
    neck=dict(type='ldae.SimMIMDecoder', in_channels=768, patch_size=16),
    head=dict(type='SimMIMHead', patch_size=16, loss=dict(type='PixelReconstructionLoss', criterion='L1', channel=3)),
)
