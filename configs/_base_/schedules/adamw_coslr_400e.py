# SPDX-License-Identifier: Apache-2.0
"""The paper's pre-training schedule: batch 2048, lr 1e-4 per 256 images, 100 warm-up epochs, cosine to 0."""

optim_wrapper = dict(
    # bf16 autocast; the paper doesn't state its precision.
    type='ldae.AutocastOptimWrapper',
    # The paper says Adam(W) and leaves the betas open; (0.9, 0.95) is MAE's choice.
    optimizer=dict(type='AdamW', lr=1e-4 * 2048 / 256, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, by_epoch=True, begin=0, end=100, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=300, by_epoch=True, begin=100, end=400, convert_to_iter_based=True),
]

# Validation: 50 000 forward passes every 10 epochs.
train_cfg = dict(by_epoch=True, max_epochs=400, val_interval=10)

# Another number of processes or batch size: lr is scaled linearly.
auto_scale_lr = dict(enable=True, base_batch_size=2048)
