# SPDX-License-Identifier: Apache-2.0
"""Half of an image's tokens are noised to one level that is drawn, all others are clean; the loss is that of the noised.

Row:       50 % of the tokens noised
Table:     after-paper
Source:    arXiv 2111.06377, arXiv 2401.14404
Run:       tools/dist_train.sh configs/after_paper/axis_share50.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './axis_ldae.py'

model = dict(noiser=dict(share=0.5))
