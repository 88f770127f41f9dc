# SPDX-License-Identifier: Apache-2.0
"""l-DAE with a 12 + 12 block ViT of width 1024, the paper's "ViT-1/2L"."""

_base_ = './ldae_vit-b.py'

model = dict(backbone=dict(arch='half-large'))
