# SPDX-License-Identifier: Apache-2.0
"""Fashion-MNIST on a CPU, many small steps: batch 64, lr 2e-3, 20 epochs, one of warm-up, cosine, fp32."""

optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=19, by_epoch=True, begin=1, end=20, convert_to_iter_based=True),
]

train_cfg = dict(by_epoch=True, max_epochs=20, val_interval=5)
auto_scale_lr = dict(enable=True, base_batch_size=64)
