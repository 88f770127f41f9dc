# SPDX-License-Identifier: Apache-2.0
"""Table 3: the network predicts the clean latent instead of the noise, weighted by gamma_t^2.

Row:       predict clean data
Table:     table3
Paper:     linear 62.4
Run:       tools/dist_train.sh configs/deconstruction/t3_1_predict-clean.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t2_pca_d32.py'

model = dict(head=dict(_delete_=True, type='ldae.CleanLatentHead'))
