# SPDX-License-Identifier: Apache-2.0
"""Latent scale: unit variance in each dimension.

The paper does not say how latents get to the variance that its noise levels suppose.

Row:       latent_norm = 'whiten'
Table:     latent-norm
Paper:     none
Run:       tools/dist_train.sh configs/deconstruction/norm_whiten.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './norm_global.py'

model = dict(tokenizer=dict(latent_norm='whiten'))
