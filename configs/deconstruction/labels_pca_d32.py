# SPDX-License-Identifier: Apache-2.0
"""Class labels on latents of a PCA: the step of Table 1 that takes labels away, where no tokenizer needs VGG.

Compare with t2_pca_d32, which differs in the labels alone. Not a row of the paper.

Row:       patch-wise PCA, d = 32, class-conditional
Table:     labels
Paper:     none
Run:       tools/dist_train.sh configs/deconstruction/labels_pca_d32.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t2_pca_d32.py'

model = dict(num_classes=1000)
train_dataloader = dict(dataset=dict(with_label=True))
