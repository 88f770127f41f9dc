# SPDX-License-Identifier: Apache-2.0
"""Table 1: from here on no label is read anywhere.

Row:       + remove class-conditioning
Table:     table1
Paper:     linear 62.5, FID 30.9
Run:       tools/dist_train.sh configs/deconstruction/t1_2_no-class-conditioning.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t1_1_dit-baseline.py'

model = dict(num_classes=None)
train_dataloader = dict(dataset=dict(with_label=False))
