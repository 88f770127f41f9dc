# SPDX-License-Identifier: Apache-2.0
"""Table 2, patch-wise VAE, d = 32 per token.

Row:       patch-wise VAE, d = 32
Table:     table2
Paper:     linear 64.8
Run:       tools/dist_train.sh configs/deconstruction/t2_patch-vae_d32.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t2_patch-vae_d16.py'

model = dict(tokenizer=dict(latent_dim=32, checkpoint='work_dirs/patch-vae_d32/tokenizer.pth'))
