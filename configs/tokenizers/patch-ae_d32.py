# SPDX-License-Identifier: Apache-2.0
"""Patch-wise AE, linear per 16 x 16 patch, d = 32: ||x - U^T V x||^2.

Run:       tools/dist_train.sh configs/tokenizers/patch-ae_d32.py 8
           writes work_dirs/patch-ae_d32/tokenizer.pth, which pre-training configs name
Needs:     pip install -e '.[metrics]' in a clone
Batch:     8 processes x 256 images = 2048; lr = 0.08, of weights of unit size
Cost:      5 epochs x 1.28 M images; reading them is most of it
Paper:     no figure for the tokenizer itself
Ours:      not yet measured
"""

_base_ = './patch-ae_d16.py'

model = dict(tokenizer=dict(latent_dim=32))
