# SPDX-License-Identifier: Apache-2.0
"""Table 2, patch-wise PCA, d = 32 per token: the best of its column, and the start of Table 3.

Row:       patch-wise PCA, d = 32
Table:     table2
Paper:     linear 65.1
Run:       tools/dist_train.sh configs/deconstruction/t2_pca_d32.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t2_pca_d16.py'

model = dict(tokenizer=dict(latent_dim=32))
