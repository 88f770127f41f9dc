# SPDX-License-Identifier: Apache-2.0
"""Table 2, patch-wise VAE, d = 16 per token: encoder and decoder are one linear map a patch each.

Row:       patch-wise VAE, d = 16
Table:     table2
Paper:     linear 64.9
Run:       tools/dist_train.sh configs/deconstruction/t2_patch-vae_d16.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t2_conv-vae_d16.py'

model = dict(
    tokenizer=dict(
        _delete_=True,
        type='ldae.PatchVAETokenizer',
        img_size=256,
        patch_size=16,
        in_channels=3,
        latent_dim=16,
        checkpoint='work_dirs/patch-vae_d16/tokenizer.pth',
    )
)
