# SPDX-License-Identifier: Apache-2.0
"""Table 3: gamma_t = 1, sigma_t linear from 0 to sqrt(2), the loss weighted by 1 / (1 + sigma_t^2).

Row:       remove input scaling
Table:     table3
Paper:     linear 63.6
Run:       tools/dist_train.sh configs/deconstruction/t3_2_no-input-scaling.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t3_1_predict-clean.py'

model = dict(noiser=dict(schedule='linear_sigma'))
