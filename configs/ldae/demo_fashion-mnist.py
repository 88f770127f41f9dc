# SPDX-License-Identifier: Apache-2.0
"""The demo's l-DAE: the Fashion-MNIST subset that ships with this package, 7 x 7 patches, d = 8, on 2 CPU cores.

Run:       tools/demo.py (with MAE beside it, and the scores); alone: tools/train.py configs/ldae/demo_fashion-mnist.py
Batch:     1 process x 64 images = 64; lr = 2e-3
Cost:      20 epochs x 10 000 images x 16 tokens
Paper:     no figure, not a data set of the paper
Ours:      not yet measured
"""

_base_ = ['../_base_/models/ldae_vit-96_28px.py', '../_base_/demo_fashion-mnist.py']

# What the encoder's features are taken at. The paper's t = 10 suits ImageNet; 16 tokens of 8 numbers with hardly any
# noise can be copied without understanding them, and a held-out part of the training set prefers more.
model = dict(backbone=dict(timestep=500))

train_cfg = dict(val_interval=20)  # PSNR by noise level, once, at the end

default_hooks = dict(
    progress_bar=dict(desc='l-DAE'),
    fit_tokenizer=dict(type='ldae.FitTokenizerHook', num_images=None),
    pictures=dict(type='ldae.DenoisingPicturesHook', interval=10),
)

randomness = dict(diff_rank_seed=False)  # as in _base_/ldae_runtime.py
