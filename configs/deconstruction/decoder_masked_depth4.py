# SPDX-License-Identifier: Apache-2.0
"""The masked encoder before a decoder of 4 blocks instead of 12.

Most of the cost of a masked step is the decoder, which sees all places.

Row:       masked, decoder of 4 blocks
Table:     decoder
Paper:     none
Run:       tools/dist_train.sh configs/deconstruction/decoder_masked_depth4.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './decoder_masked.py'

model = dict(neck=dict(arch=dict(num_layers=4)))
