# SPDX-License-Identifier: Apache-2.0
"""Latent scale: one scalar for all dimensions, as l-DAE has it here.

The paper does not say how latents get to the variance that its noise levels suppose.

Row:       latent_norm = 'global'
Table:     latent-norm
Paper:     none
Run:       tools/dist_train.sh configs/deconstruction/norm_global.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t3_5_original-image.py'
