# SPDX-License-Identifier: Apache-2.0
"""The recipe for few small images: the demo's l-DAE, masked, with a decoder in proportion to MAE's, for 40 epochs.

Run:       tools/train.py configs/ldae/demo_fashion-mnist_masked_40e.py
Batch:     1 process x 64 images = 64; lr = 2e-3
Cost:      40 epochs x 10 000 images x 16 tokens, a quarter of them through the encoder; 5.9 TFLOP, the demo's l-DAE has 6.7
Paper:     no figure, not in the paper
Ours:      20-NN 78.7 ± 0.3, linear 83.5 ± 0.2 at t = 10, seeds 0, 1, 2 (docs/small_data.md)
"""

_base_ = './demo_fashion-mnist_masked.py'

# 8 blocks of width 512 for 24 of 1024 are 2 of 48 for 6 of 96.
model = dict(neck=dict(arch=dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=192)))

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=39, by_epoch=True, begin=1, end=40, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=40, val_interval=40)
