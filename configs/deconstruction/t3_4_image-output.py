# SPDX-License-Identifier: Apache-2.0
"""Table 3: the network predicts the image that the clean latent decodes to.

Row:       image output by inverse PCA
Table:     table3
Paper:     linear 63.9
Run:       tools/dist_train.sh configs/deconstruction/t3_4_image-output.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t3_3_image-input.py'

model = dict(head=dict(_delete_=True, type='ldae.DecodedImageHead'))
