# SPDX-License-Identifier: Apache-2.0
"""Three quarters of an image's tokens are noised to one level for all images, the most there is, sigma = 1.41; all others are clean.

Row:       75 % of the tokens noised to t = 999
Table:     after-paper
Source:    arXiv 2111.06377, arXiv 2401.14404
Run:       tools/dist_train.sh configs/after_paper/axis_share75_t999.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './axis_share75.py'

model = dict(noiser=dict(level=999))
