# SPDX-License-Identifier: Apache-2.0
"""The SNR weight gamma_t^2 / sigma_t^2 of Salimans & Ho instead of gamma_t^2.

The paper tried it, found it worse than t3_1 and prints no number.

Row:       weight gamma^2 / sigma^2
Table:     loss-weight
Paper:     none
Run:       tools/dist_train.sh configs/deconstruction/weight_snr.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t3_1_predict-clean.py'

model = dict(noiser=dict(weighting='snr'))
