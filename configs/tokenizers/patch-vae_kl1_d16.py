# SPDX-License-Identifier: Apache-2.0
"""Patch-wise VAE, d = 16, with the loss as printed: ||x - U^T V x||^2 + KL, both summed over an image, KL counting once.

The KL brings latents to unit scale, and switches off those of components with a variance below 1/2.

Run:       tools/dist_train.sh configs/tokenizers/patch-vae_kl1_d16.py 8
           writes work_dirs/patch-vae_kl1_d16/tokenizer.pth, which pre-training configs name
Needs:     pip install -e '.[metrics]' in a clone
Batch:     8 processes x 256 images = 2048; lr = 0.08, of weights of unit size
Cost:      5 epochs x 1.28 M images; reading them is most of it
Paper:     no figure for the tokenizer itself
Ours:      not yet measured
"""

_base_ = './patch-vae_d16.py'

model = dict(kl_weight=1.0)
