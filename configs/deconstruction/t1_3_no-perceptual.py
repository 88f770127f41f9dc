# SPDX-License-Identifier: Apache-2.0
"""Table 1: the tokenizer is trained without the perceptual loss (LPIPS).

Row:       + remove VQGAN perceptual loss
Table:     table1
Paper:     linear 58.4, FID 54.3
Run:       tools/dist_train.sh configs/deconstruction/t1_3_no-perceptual.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t1_2_no-class-conditioning.py'

model = dict(tokenizer=dict(checkpoint='work_dirs/conv-vae_f8_kl-gan/tokenizer.pth'))
