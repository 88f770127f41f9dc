# SPDX-License-Identifier: Apache-2.0
"""JiT's prediction and loss on pixels, 768 values a token.

Row:       pixels, predict clean, loss of velocity
Table:     after-paper
Source:    arXiv 2511.13720
Run:       tools/dist_train.sh configs/after_paper/pixel_clean_velocity.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './grid_clean_velocity.py'

model = dict(
    tokenizer=dict(_delete_=True, type='ldae.PixelTokenizer', img_size=256, patch_size=16, in_channels=3, resized=256)
)
