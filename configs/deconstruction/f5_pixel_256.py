# SPDX-License-Identifier: Apache-2.0
"""Figure 5: noise on pixels, the image at 256 px, patches of 16: d = 768 per token.

Row:       pixels, 256 px, patch 16, d = 768
Table:     figure5
Paper:     linear 23.6
Run:       tools/dist_train.sh configs/deconstruction/f5_pixel_256.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t2_pca_d32.py'

model = dict(
    tokenizer=dict(_delete_=True, type='ldae.PixelTokenizer', img_size=256, patch_size=16, in_channels=3, resized=256)
)
