# SPDX-License-Identifier: Apache-2.0
"""Table 1, start: a class-conditional DiT on the latents of an LDM autoencoder, cut into 12 + 12 blocks.

The only row of the paper that reads labels. Its tokenizer is trained first: configs/tokenizers/conv-vae_f8_kl-lpips-gan.py.

Row:       DiT baseline
Table:     table1
Paper:     linear 57.5, FID 11.6
Run:       tools/dist_train.sh configs/deconstruction/t1_1_dit-baseline.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = [
    '../_base_/models/ldae_vit-half-l.py',
    '../_base_/datasets/imagenet_256_center.py',
    '../_base_/schedules/adamw_coslr_400e.py',
    '../_base_/ldae_runtime.py',
]

model = dict(
    num_classes=1000,
    tokenizer=dict(
        _delete_=True,
        type='ldae.ConvVAETokenizer',
        img_size=256,
        patch_size=16,
        in_channels=3,
        # A token is 2 x 2 cells of the 32 x 32 x 4 map.
        latent_dim=16,
        downsample=8,
        checkpoint='work_dirs/conv-vae_f8_kl-lpips-gan/tokenizer.pth',
    ),
    noiser=dict(schedule='ddpm_linear'),
    backbone=dict(input_type='latent'),
    head=dict(_delete_=True, type='ldae.NoiseHead'),
)

# On a GPU of 80 GB; 2 such batches make a step.
train_dataloader = dict(batch_size=128, dataset=dict(with_label=True))
optim_wrapper = dict(accumulative_counts=2)
