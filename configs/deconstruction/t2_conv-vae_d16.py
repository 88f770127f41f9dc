# SPDX-License-Identifier: Apache-2.0
"""Table 2, convolutional VAE, d = 16 per token: the tokenizer of the last row of Table 1, and that row itself.

Row:       convolutional VAE, d = 16
Table:     table2
Paper:     linear 63.4
Run:       tools/dist_train.sh configs/deconstruction/t2_conv-vae_d16.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t1_5_linear-schedule.py'
