# SPDX-License-Identifier: Apache-2.0
"""As imagenet_224_linear.py, trained on 10% of each class: the same images in every run, chosen by a seed.

128 images per process; with 8 processes, 1024. The test set stays whole.
"""

_base_ = './imagenet_224_linear.py'

train_dataloader = dict(batch_size=128, dataset=dict(fraction=0.1, fraction_seed=0))
