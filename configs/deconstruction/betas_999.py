# SPDX-License-Identifier: Apache-2.0
"""Betas (0.9, 0.999) of Adam, its defaults; the paper names none, and the rows have MAE's (0.9, 0.95).

Row:       betas (0.9, 0.999)
Table:     optimizer
Paper:     none
Run:       tools/dist_train.sh configs/deconstruction/betas_999.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t3_5_original-image.py'

optim_wrapper = dict(optimizer=dict(betas=(0.9, 0.999)))
