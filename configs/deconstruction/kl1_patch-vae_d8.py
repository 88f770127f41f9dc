# SPDX-License-Identifier: Apache-2.0
"""Table 2, patch-wise VAE, d = 8 per token, with a KL weight of 1 as printed; t2_patch-vae_d8 has LDM's 1e-6.

At 1e-6 the noise of the posterior is 0.0015 of a latent's deviation, and the VAE an AE.

Row:       patch-wise VAE, KL weight 1, d = 8
Table:     kl-weight
Paper:     linear 58.3
Run:       tools/dist_train.sh configs/deconstruction/kl1_patch-vae_d8.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t2_patch-vae_d8.py'

model = dict(tokenizer=dict(checkpoint='work_dirs/patch-vae_kl1_d8/tokenizer.pth'))
