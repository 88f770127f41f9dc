# SPDX-License-Identifier: Apache-2.0
"""Appendix A: the 24 blocks are cut after the 14th, an encoder of 14 and a decoder of 10.

Row:       encoder of 14 of 24 blocks
Table:     appendix-a-cut
Paper:     linear 61.9
Run:       tools/dist_train.sh configs/deconstruction/a_cut14.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './a_cut13.py'

model = dict(backbone=dict(arch=dict(num_layers=14)), neck=dict(arch=dict(num_layers=10)))
