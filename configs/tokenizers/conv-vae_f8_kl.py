# SPDX-License-Identifier: Apache-2.0
"""Convolutional VAE of LDM, stride 8, 4 channels (d = 16): reconstruction + KL.

Run:       tools/dist_train.sh configs/tokenizers/conv-vae_f8_kl.py 8
           writes work_dirs/conv-vae_f8_kl/tokenizer.pth, which pre-training configs name
Batch:     8 processes x 12 images = 96; lr = 4.5e-6 x 96 = 4.3e-4
Cost:      20 epochs x 1.28 M images of 256 px through 84 M parameters
Needs:     pip install -e '.[vae,metrics]' in a clone
Paper:     no figure for the tokenizer itself
Ours:      not yet measured
"""

_base_ = [
    '../_base_/datasets/imagenet_256_tokenizer.py',
    '../_base_/schedules/conv_vae_20e.py',
    '../_base_/tokenizer_runtime.py',
]

model = dict(
    type='ldae.TokenizerTrainer',
    tokenizer=dict(
        type='ldae.ConvVAETokenizer', img_size=256, patch_size=16, in_channels=3, latent_dim=16, downsample=8
    ),
    reconstruction='l1',
    kl_weight=1e-6,
)
train_dataloader = dict(batch_size=12)
val_dataloader = dict(batch_size=12)
test_dataloader = val_dataloader
