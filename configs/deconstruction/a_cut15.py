# SPDX-License-Identifier: Apache-2.0
"""Appendix A: the 24 blocks are cut after the 15th, an encoder of 15 and a decoder of 9.

Row:       encoder of 15 of 24 blocks
Table:     appendix-a-cut
Paper:     linear 59.7
Run:       tools/dist_train.sh configs/deconstruction/a_cut15.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './a_cut14.py'

model = dict(backbone=dict(arch=dict(num_layers=15)), neck=dict(arch=dict(num_layers=9)))
