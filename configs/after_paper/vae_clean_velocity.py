# SPDX-License-Identifier: Apache-2.0
"""JLT's prediction and loss on the latents of a convolutional VAE.

Row:       VAE, predict clean, loss of velocity
Table:     after-paper
Source:    arXiv 2605.27102
Run:       tools/dist_train.sh configs/after_paper/vae_clean_velocity.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './grid_clean_velocity.py'

model = dict(
    tokenizer=dict(
        _delete_=True,
        type='ldae.ConvVAETokenizer',
        img_size=256,
        patch_size=16,
        in_channels=3,
        latent_dim=16,
        downsample=8,
        checkpoint='work_dirs/conv-vae_f8_kl/tokenizer.pth',
    )
)
