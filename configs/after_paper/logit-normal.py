# SPDX-License-Identifier: Apache-2.0
"""JiT's levels of noise: the logit of the image's share is normal, of mean -0.8 and deviation 0.8.

Row:       predict clean, loss of velocity, logit-normal t
Table:     after-paper
Source:    arXiv 2511.13720
Run:       tools/dist_train.sh configs/after_paper/logit-normal.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './grid_clean_velocity.py'

model = dict(noiser=dict(logit_normal=(-0.8, 0.8)))
