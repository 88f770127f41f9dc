# SPDX-License-Identifier: Apache-2.0
"""Linear tokenizers: batch 2048, Adam, lr 1e-3, 5 epochs, one of warm-up, cosine to 0. Ours; the paper names none."""

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0, fused=True),
)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=4, by_epoch=True, begin=1, end=5, convert_to_iter_based=True),
]

train_cfg = dict(by_epoch=True, max_epochs=5, val_interval=1)
auto_scale_lr = dict(enable=True, base_batch_size=2048)
