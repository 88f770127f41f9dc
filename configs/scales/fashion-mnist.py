# SPDX-License-Identifier: Apache-2.0
"""Scale: the full Fashion-MNIST, from a folder with its four IDX files; networks and geometry of the subset's scale.

Run:       tools/train.py configs/deconstruction/t3_5_original-image.py --scale fashion-mnist --data-root DIR
           Debian's package dataset-fashion-mnist puts the files into /usr/share/datasets/fashion-mnist.
Batch:     1 process x 64 images = 64; lr = 2e-3
"""

_base_ = './fashion-mnist_subset.py'

data_root = 'data/fashion-mnist'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader

# Six times the subset's images, and twice the epochs.
default_hooks = dict(ema=dict(momentum=3e-3))
scale = dict(
    epochs=8,
    tokenizer_epochs={'ldae.PatchAETokenizer': 10, 'ldae.PatchVAETokenizer': 10},
    adversarial_start_step=700,
    benchmarks=dict(linear=dict(epochs=30)),
)
