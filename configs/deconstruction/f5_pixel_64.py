# SPDX-License-Identifier: Apache-2.0
"""Figure 5: noise on pixels, the image at 64 px, patches of 4: d = 48 per token.

The paper draws this point and prints no number for it. It says that d = 48 is the best of the four.

Row:       pixels, 64 px, patch 4, d = 48
Table:     figure5
Paper:     none
Run:       tools/dist_train.sh configs/deconstruction/f5_pixel_64.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './f5_pixel_256.py'

model = dict(tokenizer=dict(resized=64))
