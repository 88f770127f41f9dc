# SPDX-License-Identifier: Apache-2.0
"""Table 3, end: the network predicts the original image. This is l-DAE, as in configs/ldae/vit-half-l_pca.py.

Row:       predict the original image
Table:     table3
Paper:     linear 64.5
Run:       tools/dist_train.sh configs/deconstruction/t3_5_original-image.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t3_4_image-output.py'

model = dict(head=dict(_delete_=True, type='ldae.OriginalImageHead', tail_weight=0.1))
