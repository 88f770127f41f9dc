# SPDX-License-Identifier: Apache-2.0
"""MoCo v3's schedule for a ViT as in mmpretrain: batch 4096, lr 1.5e-4 per 256 images, 40 warm-up epochs."""

optim_wrapper = dict(
    type='AmpOptimWrapper', loss_scale='dynamic', optimizer=dict(type='AdamW', lr=1.5e-4 * 4096 / 256, weight_decay=0.1)
)
# The momentum encoder learns by averaging, and the embedding of patches not at all.
find_unused_parameters = True

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=40, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=260, by_epoch=True, begin=40, end=300, convert_to_iter_based=True),
]

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300)
auto_scale_lr = dict(base_batch_size=4096)
