# SPDX-License-Identifier: Apache-2.0
"""Figure 5: noise on pixels, the image at 32 px, patches of 2: d = 12 per token.

The paper draws this point and prints no number for it.

Row:       pixels, 32 px, patch 2, d = 12
Table:     figure5
Paper:     none
Run:       tools/dist_train.sh configs/deconstruction/f5_pixel_32.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './f5_pixel_256.py'

model = dict(tokenizer=dict(resized=32))
