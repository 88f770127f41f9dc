# SPDX-License-Identifier: Apache-2.0
"""MAE's end of the axis: three quarters of the tokens are gone, all others clean; the loss is that of the tokens that are gone.

Row:       75 % of the tokens hidden
Table:     after-paper
Source:    arXiv 2111.06377
Run:       tools/dist_train.sh configs/after_paper/axis_mae.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './axis_share75_t999.py'

# The decoder has a mask token in their place: what noise they have, nothing sees.
model = dict(masking=dict(type='ldae.RandomMasking', ratio=0.75, fill='mask', hides='noisiest'))
