# SPDX-License-Identifier: Apache-2.0
"""Each token has a level of noise of its own.

Row:       a level for each token
Table:     after-paper
Source:    arXiv 2407.01392
Run:       tools/dist_train.sh configs/after_paper/tokens_uniform.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './grid_velocity_velocity.py'

model = dict(noiser=dict(type='ldae.TokenNoiser', share=1.0, level='each'))
