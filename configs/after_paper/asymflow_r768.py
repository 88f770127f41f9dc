# SPDX-License-Identifier: Apache-2.0
"""AsymFlow's other end: velocity prediction of all components of a patch.

Row:       all components, r = 768: predict velocity
Table:     after-paper
Source:    arXiv 2605.12964
Run:       tools/dist_train.sh configs/after_paper/asymflow_r768.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './asymflow_r0.py'

model = dict(head=dict(rank=768))
