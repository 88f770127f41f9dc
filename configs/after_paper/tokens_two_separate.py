# SPDX-License-Identifier: Apache-2.0
"""Two levels of noise an image, and a token attends to those of its own level only.

Row:       two levels, attention within each
Table:     after-paper
Source:    arXiv 2607.02508
Run:       tools/dist_train.sh configs/after_paper/tokens_two_separate.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './tokens_two.py'

model = dict(backbone=dict(attend_by_level=True))
