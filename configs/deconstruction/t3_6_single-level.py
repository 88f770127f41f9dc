# SPDX-License-Identifier: Apache-2.0
"""One noise level, sigma = sqrt(1/3), as a classical DAE has it.

Row:       single noise level
Table:     table3
Paper:     linear 61.5
Run:       tools/dist_train.sh configs/deconstruction/t3_6_single-level.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t3_5_original-image.py'

model = dict(noiser=dict(schedule='single_level'))
