# SPDX-License-Identifier: Apache-2.0
"""Small models to export."""

import torch
from torch import nn

ARCH = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=72)
PCA = dict(type='ldae.PatchPCATokenizer', latent_dim=6, latent_norm='whiten')
PREPROCESSOR = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)


def ldae_config(tokenizer: dict | None = None, backbone: dict | None = None, **model) -> dict:
    """A small l-DAE on 16 x 16 images in patches of 4."""
    tokenizer = dict(tokenizer or PCA, img_size=16, patch_size=4)
    return dict(
        model=dict(
            type='ldae.LDAE',
            tokenizer=dict(dict(in_channels=3), **tokenizer),
            noiser=dict(type='ldae.GaussianNoiser', schedule='linear_sigma', num_timesteps=1000),
            backbone=dict(type='ldae.LDAEViT', arch=ARCH, **(backbone or {})),
            neck=dict(type='ldae.LDAEDecoder', arch=ARCH),
            head=dict(type='ldae.CleanLatentHead'),
            **model,
        )
    )


def mae_config() -> dict:
    """A small MAE on the same images."""
    return dict(
        model=dict(
            type='MAE',
            backbone=dict(type='MAEViT', arch=ARCH, img_size=16, patch_size=4, mask_ratio=0.75),
            neck=dict(
                type='MAEPretrainDecoder',
                num_patches=16,
                patch_size=4,
                embed_dim=32,
                decoder_embed_dim=16,
                decoder_depth=1,
                decoder_num_heads=2,
            ),
            head=dict(type='MAEPretrainHead', patch_size=4, loss=dict(type='PixelReconstructionLoss', criterion='L2')),
        )
    )


def classifier_config(backbone: dict, **model) -> dict:
    """A classifier on the same images."""
    head = dict(type='LinearClsHead', num_classes=3, in_channels=32)
    return dict(model=dict(dict(type='ImageClassifier', backbone=backbone, head=head), **model))


def shuffle(model: nn.Module) -> nn.Module:
    """Weights that all matter; a tokenizer whose two maps differ."""
    torch.manual_seed(0)
    for name, param in model.named_parameters():
        if not name.endswith('pos_embed'):
            nn.init.normal_(param, std=0.2)
    tokenizer = getattr(model, 'tokenizer', None) or getattr(model.backbone, 'tokenizer', None)
    if tokenizer is not None:
        for name, buffer in tokenizer.named_buffers():
            if name in ('patch_map.encoder', 'patch_map.decoder', 'patch_map.mean') and tokenizer.needs_fit:
                nn.init.normal_(buffer)
        if hasattr(tokenizer, 'fitted'):
            tokenizer.fitted.fill_(1)
        if hasattr(tokenizer, 'shift') and tokenizer.needs_fit:
            tokenizer.shift.fill_(0.3)
            tokenizer.scale.fill_(1.7)
    return model.eval()
