# SPDX-License-Identifier: Apache-2.0
"""l-DAE on the full Fashion-MNIST, read from a folder: 3 + 3 blocks of width 96, 7 x 7 patches, d = 8.

Run:       tools/dist_train.sh configs/ldae/fashion-mnist_pca.py 1 --data-root DIR
           DIR holds the four IDX files; Debian's package dataset-fashion-mnist puts them into
           /usr/share/datasets/fashion-mnist. To have them downloaded into DIR instead:
           --cfg-options {train,val,test}_dataloader.dataset.download=True
Batch:     1 process x 64 images = 64; lr = 2e-3
Cost:      20 epochs x 60 000 images x 16 tokens = 19 M tokens
Paper:     no figure, not a data set of the paper
Ours:      not yet measured
"""

_base_ = [
    '../_base_/models/ldae_vit-96_28px.py',
    '../_base_/datasets/fashion_mnist.py',
    '../_base_/schedules/fashion_mnist_20e.py',
    '../_base_/ldae_runtime.py',
]

# A pass over the training set takes seconds.
default_hooks = dict(checkpoint=dict(interval=5))
