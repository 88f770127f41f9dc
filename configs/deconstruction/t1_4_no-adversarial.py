# SPDX-License-Identifier: Apache-2.0
"""Table 1: the tokenizer is trained without the adversarial loss: a plain convolutional VAE.

Row:       + remove VQGAN adversarial loss
Table:     table1
Paper:     linear 59.0, FID 75.6
Run:       tools/dist_train.sh configs/deconstruction/t1_4_no-adversarial.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t1_3_no-perceptual.py'

model = dict(tokenizer=dict(checkpoint='work_dirs/conv-vae_f8_kl/tokenizer.pth'))
