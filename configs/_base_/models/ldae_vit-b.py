# SPDX-License-Identifier: Apache-2.0
"""l-DAE with a 12 + 12 block ViT-B: PCA at d = 32, no input scaling, image in, original image out."""

model = dict(
    type='ldae.LDAE',
    tokenizer=dict(
        type='ldae.PatchPCATokenizer', img_size=256, patch_size=16, in_channels=3, latent_dim=32, latent_norm='global'
    ),
    noiser=dict(type='ldae.GaussianNoiser', schedule='linear_sigma', num_timesteps=1000, draw_by='row'),
    backbone=dict(type='ldae.LDAEViT', arch='base', input_type='image'),
    neck=dict(type='ldae.LDAEDecoder'),
    head=dict(type='ldae.OriginalImageHead', tail_weight=0.1),
)
