# SPDX-License-Identifier: Apache-2.0
"""Convolutional VAE of LDM, stride 8, 8 channels (d = 32): reconstruction + KL.

Run:       tools/dist_train.sh configs/tokenizers/conv-vae_f8_kl_d32.py 8
           writes work_dirs/conv-vae_f8_kl_d32/tokenizer.pth, which pre-training configs name
Batch:     8 processes x 12 images = 96; lr = 4.5e-6 x 96 = 4.3e-4
Cost:      20 epochs x 1.28 M images of 256 px through 84 M parameters
Needs:     pip install -e '.[vae,metrics]' in a clone
Paper:     no figure for the tokenizer itself
Ours:      not yet measured
"""

_base_ = './conv-vae_f8_kl.py'

model = dict(tokenizer=dict(latent_dim=32))
