# SPDX-License-Identifier: Apache-2.0
"""Table 1: gamma_t^2 falls linearly instead of by DDPM's linear beta: less time at high noise.

Row:       + replace noise schedule
Table:     table1
Paper:     linear 63.4, FID 93.2
Run:       tools/dist_train.sh configs/deconstruction/t1_5_linear-schedule.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t1_4_no-adversarial.py'

model = dict(noiser=dict(schedule='linear_gamma_sq'))
