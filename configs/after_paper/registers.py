# SPDX-License-Identifier: Apache-2.0
"""Four registers in the encoder: learned tokens that are dropped from its output.

Row:       four registers
Table:     after-paper
Source:    arXiv 2309.16588
Run:       tools/dist_train.sh configs/after_paper/registers.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = '../deconstruction/t3_5_original-image.py'

model = dict(backbone=dict(reg_tokens=4))
