# SPDX-License-Identifier: Apache-2.0
"""Two levels of noise an image: a quarter of the tokens has one, all others another, both drawn.

Self-Flow's noise, without its teacher.

Row:       two levels, 25 % of the tokens
Table:     after-paper
Source:    arXiv 2603.06507
Run:       tools/dist_train.sh configs/after_paper/tokens_two.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './tokens_uniform.py'

model = dict(noiser=dict(share=0.25, level='drawn', rest='drawn'))
