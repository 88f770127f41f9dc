# SPDX-License-Identifier: Apache-2.0
"""LDM's autoencoder: batch 96, lr 4.5e-6 an image, Adam with betas (0.5, 0.9).

20 epochs are 267 000 steps, of which the discriminator sees the last 217 000. Warm-up and cosine are ours; LDM's lr is
constant and the length of its runs isn't stated.
"""

optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='Adam', lr=4.5e-6 * 96, betas=(0.5, 0.9), weight_decay=0.0, fused=True)
)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=19, by_epoch=True, begin=1, end=20, convert_to_iter_based=True),
]

train_cfg = dict(by_epoch=True, max_epochs=20, val_interval=1)
auto_scale_lr = dict(enable=True, base_batch_size=96)
