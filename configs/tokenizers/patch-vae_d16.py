# SPDX-License-Identifier: Apache-2.0
"""Patch-wise VAE, linear per 16 x 16 patch, d = 16: ||x - U^T V x||^2 + KL.

Run:       tools/dist_train.sh configs/tokenizers/patch-vae_d16.py 8
           writes work_dirs/patch-vae_d16/tokenizer.pth, which pre-training configs name
Needs:     pip install -e '.[metrics]' in a clone
Batch:     8 processes x 256 images = 2048; lr = 0.08, of weights of unit size
Cost:      5 epochs x 1.28 M images; reading them is most of it
Paper:     no figure for the tokenizer itself
Ours:      not yet measured
"""

_base_ = [
    '../_base_/datasets/imagenet_256_tokenizer.py',
    '../_base_/schedules/patch_tokenizer_5e.py',
    '../_base_/tokenizer_runtime.py',
]

model = dict(
    type='ldae.TokenizerTrainer',
    tokenizer=dict(
        type='ldae.PatchVAETokenizer', img_size=256, patch_size=16, in_channels=3, latent_dim=16, latent_norm='global'
    ),
    reconstruction='l2',
    # Per image, errors and KL summed: the weight of LDM's autoencoders. The paper states none.
    kl_weight=1e-6,
)
