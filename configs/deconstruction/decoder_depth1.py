# SPDX-License-Identifier: Apache-2.0
"""A decoder of 1 block instead of 12, of the encoder's width.

The paper's halves are of equal size; MAE finds that a shallow decoder costs linear accuracy and little else.

Row:       decoder of 1 block
Table:     decoder
Paper:     none
Run:       tools/dist_train.sh configs/deconstruction/decoder_depth1.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t3_5_original-image.py'

model = dict(neck=dict(arch=dict(num_layers=1)))
