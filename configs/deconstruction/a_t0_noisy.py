# SPDX-License-Identifier: Apache-2.0
"""Appendix A: features are taken at t = 0, of an image with the noise of that t.

Pre-training is that of t3_5; the rows of this table differ in transfer only.

Row:       t = 0, noisy input
Table:     appendix-a-timestep
Paper:     linear 64.2
Run:       tools/dist_train.sh configs/deconstruction/a_t0_noisy.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './a_t0_clean.py'

model = dict(transfer_noise=True)
