# SPDX-License-Identifier: Apache-2.0
"""l-DAE's end of the axis: all tokens noised to one level that is drawn; the same as t3_5_original-image, bit by bit.

Row:       l-DAE: 100 % of the tokens noised
Table:     after-paper
Source:    arXiv 2401.14404
Run:       tools/dist_train.sh configs/after_paper/axis_ldae.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = '../deconstruction/t3_5_original-image.py'

model = dict(noiser=dict(type='ldae.TokenNoiser', share=1.0, level='drawn', loss_on='noised'))
