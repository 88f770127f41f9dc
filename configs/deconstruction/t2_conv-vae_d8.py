# SPDX-License-Identifier: Apache-2.0
"""Table 2, convolutional VAE, d = 8 per token.

Row:       convolutional VAE, d = 8
Table:     table2
Paper:     linear 54.5
Run:       tools/dist_train.sh configs/deconstruction/t2_conv-vae_d8.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t2_conv-vae_d16.py'

model = dict(tokenizer=dict(latent_dim=8, checkpoint='work_dirs/conv-vae_f8_kl_d8/tokenizer.pth'))
