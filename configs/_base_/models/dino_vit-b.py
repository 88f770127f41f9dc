# SPDX-License-Identifier: Apache-2.0
"""DINO with ViT-B: class token, projection of three layers to 65 536 prototypes."""

model = dict(
    type='ldae.DINO',
    base_momentum=0.004,
    teacher_temp=(0.04, 0.07),
    warm_up=0.125,
    freeze_last_layer=0.0075,
    backbone=dict(type='VisionTransformer', arch='base', img_size=224, patch_size=16, drop_path_rate=0.1),
    neck=dict(type='ldae.DINOProjection', in_channels=768, hid_channels=2048, out_channels=256, num_prototypes=65536),
    head=dict(student_temp=0.1, center_momentum=0.9),
)
