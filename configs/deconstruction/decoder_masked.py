# SPDX-License-Identifier: Apache-2.0
"""An encoder that sees a random quarter of the noisy tokens, before a decoder of its own size.

As MAE: the decoder has a mask token at the places that are hidden, and the loss is of all of them.

Row:       masked
Table:     decoder
Paper:     none
Run:       tools/dist_train.sh configs/deconstruction/decoder_masked.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t3_5_original-image.py'

model = dict(masking=dict(type='ldae.RandomMasking', ratio=0.75, fill='mask'))
