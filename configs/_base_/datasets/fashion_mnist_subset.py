# SPDX-License-Identifier: Apache-2.0
"""The part of Fashion-MNIST that ships with this package: 10 000 + 2 000 images, class-balanced."""

_base_ = './fashion_mnist.py'

data_root = None
train_dataloader = dict(dataset=dict(data_root=None))
val_dataloader = dict(dataset=dict(data_root=None))
test_dataloader = val_dataloader
