# SPDX-License-Identifier: Apache-2.0
"""The masked encoder before MAE's decoder of 8 blocks of width 512.

Most of the cost of a masked step is the decoder, which sees all places.

Row:       masked, decoder of 8 blocks of width 512
Table:     decoder
Paper:     none
Run:       tools/dist_train.sh configs/deconstruction/decoder_masked_mae.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './decoder_masked.py'

model = dict(neck=dict(arch=dict(embed_dims=512, num_layers=8)))
