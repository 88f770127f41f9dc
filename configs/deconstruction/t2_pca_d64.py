# SPDX-License-Identifier: Apache-2.0
"""Table 2, patch-wise PCA, d = 64 per token.

Row:       patch-wise PCA, d = 64
Table:     table2
Paper:     linear 60.0
Run:       tools/dist_train.sh configs/deconstruction/t2_pca_d64.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t2_pca_d16.py'

model = dict(tokenizer=dict(latent_dim=64))
