# SPDX-License-Identifier: Apache-2.0
"""MAE's decoder of 8 blocks of width 512 instead of 12 of the encoder's 1024.

Row:       decoder of 8 blocks of width 512
Table:     decoder
Paper:     none
Run:       tools/dist_train.sh configs/deconstruction/decoder_mae.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t3_5_original-image.py'

model = dict(neck=dict(arch=dict(embed_dims=512, num_layers=8)))
