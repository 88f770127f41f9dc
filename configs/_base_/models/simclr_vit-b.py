# SPDX-License-Identifier: Apache-2.0
"""SimCLR with ViT-B: mmpretrain's projection and loss on MoCo v3's encoder."""

model = dict(
    type='SimCLR',
    backbone=dict(type='MoCoV3ViT', arch='base', img_size=224, patch_size=16, stop_grad_conv1=True),
    neck=dict(
        type='NonLinearNeck', in_channels=768, hid_channels=2048, out_channels=128, num_layers=2, with_avg_pool=False
    ),
    head=dict(type='ContrastiveHead', loss=dict(type='CrossEntropyLoss'), temperature=0.1),
)
