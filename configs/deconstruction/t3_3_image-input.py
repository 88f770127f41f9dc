# SPDX-License-Identifier: Apache-2.0
"""Table 3: the encoder sees the noisy image that the inverse PCA makes of the noisy latent.

Row:       image input by inverse PCA
Table:     table3
Paper:     linear 63.6
Run:       tools/dist_train.sh configs/deconstruction/t3_3_image-input.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t3_2_no-input-scaling.py'

model = dict(backbone=dict(input_type='image'))
