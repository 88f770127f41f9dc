# SPDX-License-Identifier: Apache-2.0
"""Table 2, patch-wise AE, d = 16 per token: as the patch-wise VAE without its KL term.

Row:       patch-wise AE, d = 16
Table:     table2
Paper:     linear 64.7
Run:       tools/dist_train.sh configs/deconstruction/t2_patch-ae_d16.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t2_patch-vae_d16.py'

model = dict(tokenizer=dict(type='ldae.PatchAETokenizer', checkpoint='work_dirs/patch-ae_d16/tokenizer.pth'))
