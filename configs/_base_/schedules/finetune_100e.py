# SPDX-License-Identifier: Apache-2.0
"""The paper's fine-tuning (MAE's protocol): AdamW, batch 1024, lr 4e-3, 100 epochs, layer-wise decay 0.85."""

optim_wrapper = dict(
    type='ldae.AutocastOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3 * 1024 / 256, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=0.85,
        flat_decay_mult=0.0,  # norms and biases
        custom_keys={'.cls_token': dict(decay_mult=0.0), '.pos_embed': dict(decay_mult=0.0)},
    ),
)

# MAE's five warm-up epochs and final lr of 1e-6, of which each layer has its share, as of the peak.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        T_max=95,
        by_epoch=True,
        begin=5,
        end=100,
        eta_min_ratio=1e-6 / 4e-3,
        convert_to_iter_based=True,
    ),
]

train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
auto_scale_lr = dict(enable=True, base_batch_size=1024)
