# SPDX-License-Identifier: Apache-2.0
"""DINO's schedule for a ViT-B: batch 1024, lr 7.5e-4 per 256 images, 10 warm-up epochs; weight decay stays at 0.1."""

optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    clip_grad=dict(max_norm=0.3),
    optimizer=dict(type='AdamW', lr=7.5e-4 * 1024 / 256, weight_decay=0.1),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
# The teacher learns by averaging.
find_unused_parameters = True

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR', T_max=390, eta_min=2e-6, by_epoch=True, begin=10, end=400, convert_to_iter_based=True
    ),
]

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=400)
auto_scale_lr = dict(base_batch_size=1024)
