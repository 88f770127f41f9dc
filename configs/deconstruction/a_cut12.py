# SPDX-License-Identifier: Apache-2.0
"""Appendix A: the 24 blocks are cut after the 12th, an encoder of 12 and a decoder of 12.

Row:       encoder of 12 of 24 blocks
Table:     appendix-a-cut
Paper:     linear 64.5
Run:       tools/dist_train.sh configs/deconstruction/a_cut12.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './a_cut11.py'

model = dict(backbone=dict(arch=dict(num_layers=12)), neck=dict(arch=dict(num_layers=12)))
