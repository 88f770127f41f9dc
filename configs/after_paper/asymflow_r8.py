# SPDX-License-Identifier: Apache-2.0
"""AsymFlow: the velocity of the first 8 principal components of a patch, the clean values of the other 760.

Theirs are the eigenvectors of uncentred patches.

Row:       all components, noise in the first r = 8
Table:     after-paper
Source:    arXiv 2605.12964
Run:       tools/dist_train.sh configs/after_paper/asymflow_r8.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './asymflow_r0.py'

model = dict(head=dict(rank=8))
