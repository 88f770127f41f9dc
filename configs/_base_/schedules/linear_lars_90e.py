# SPDX-License-Identifier: Apache-2.0
"""MAE's linear probe: LARS, batch 16384, lr 0.1 per 256 images, 90 epochs, 10 of them warm-up, cosine to 0.

The l-DAE paper prints lr 6.4e-3; MAE's recipe, which it follows, has 6.4 (0.1 x 16384 / 256).
"""

optim_wrapper = dict(
    # bf16 autocast; MAE's published code uses fp16 here.
    type='ldae.AutocastOptimWrapper',
    optimizer=dict(type='LARS', lr=0.1 * 16384 / 256, momentum=0.9, weight_decay=0.0),
    # MAE doesn't adapt the rate of one-dimensional parameters; here that is the head's bias.
    paramwise_cfg=dict(custom_keys={'.bias': dict(lars_exclude=True)}),
)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=80, by_epoch=True, begin=10, end=90, convert_to_iter_based=True),
]

train_cfg = dict(by_epoch=True, max_epochs=90, val_interval=1)
auto_scale_lr = dict(enable=True, base_batch_size=16384)
