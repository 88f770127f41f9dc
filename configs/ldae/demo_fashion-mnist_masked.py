# SPDX-License-Identifier: Apache-2.0
"""The demo's l-DAE with an encoder that sees a random quarter of the noisy tokens, as MAE's does.

Run:       tools/train.py configs/ldae/demo_fashion-mnist_masked.py
Batch:     1 process x 64 images = 64; lr = 4e-3
Cost:      10 epochs x 10 000 images x 16 tokens, a quarter of them through the encoder
Paper:     no figure, not in the paper
Ours:      not yet measured
"""

_base_ = './demo_fashion-mnist.py'

model = dict(masking=dict(type='ldae.RandomMasking', ratio=0.75, fill='noisy'))
