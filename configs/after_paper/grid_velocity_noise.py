# SPDX-License-Identifier: Apache-2.0
"""The network predicts the velocity, and the loss is the error of the noise that follows.

Row:       predict velocity, loss of noise
Table:     after-paper
Source:    arXiv 2511.13720
Run:       tools/dist_train.sh configs/after_paper/grid_velocity_noise.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './grid_noise_noise.py'

model = dict(head=dict(prediction='velocity', loss_space='noise'))
