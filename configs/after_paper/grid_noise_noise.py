# SPDX-License-Identifier: Apache-2.0
"""The network predicts the noise, and the loss is the error of the noise; on the linear path of flow matching.

The first of nine cells: prediction and loss are each of the noise, the clean latent or the velocity.

Row:       predict noise, loss of noise
Table:     after-paper
Source:    arXiv 2511.13720
Run:       tools/dist_train.sh configs/after_paper/grid_noise_noise.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = '../deconstruction/t2_pca_d32.py'

model = dict(noiser=dict(schedule='flow'), head=dict(_delete_=True, type='ldae.LatentHead', prediction='noise'))
