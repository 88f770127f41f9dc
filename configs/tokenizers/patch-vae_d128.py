# SPDX-License-Identifier: Apache-2.0
"""Patch-wise VAE, linear per 16 x 16 patch, d = 128: ||x - U^T V x||^2 + KL.

Run:       tools/dist_train.sh configs/tokenizers/patch-vae_d128.py 8
           writes work_dirs/patch-vae_d128/tokenizer.pth, which pre-training configs name
Needs:     pip install -e '.[metrics]' in a clone
Batch:     8 processes x 256 images = 2048; lr = 0.08, of weights of unit size
Cost:      5 epochs x 1.28 M images; reading them is most of it
Paper:     no figure for the tokenizer itself
Ours:      not yet measured
"""

_base_ = './patch-vae_d16.py'

model = dict(tokenizer=dict(latent_dim=128))
