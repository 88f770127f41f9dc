# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning of an l-DAE encoder as of MAE's: the conditioning at t = 10 merged into a plain ViT."""

_base_ = './finetune_mae.py'

model = dict(backbone=dict(type='ldae.LDAEViT', img_size=256, conditioned=False, timestep=10, pool_norm=True))
