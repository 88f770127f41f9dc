# SPDX-License-Identifier: Apache-2.0
"""Appendix A: the 24 blocks are cut after the 9th, an encoder of 9 and a decoder of 15.

Row:       encoder of 9 of 24 blocks
Table:     appendix-a-cut
Paper:     linear 58.5
Run:       tools/dist_train.sh configs/deconstruction/a_cut9.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t3_5_original-image.py'

model = dict(
    backbone=dict(arch=dict(_delete_=True, embed_dims=1024, num_layers=9, num_heads=16, feedforward_channels=4096)),
    neck=dict(arch=dict(embed_dims=1024, num_layers=15, num_heads=16, feedforward_channels=4096)),
)
