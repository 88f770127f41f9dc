# SPDX-License-Identifier: Apache-2.0
"""Half of the tokens are clean, half have one level that is drawn, and half of all are hidden: mask and noise in one training.

UMD chooses clean or noisy by image, not by token.

Row:       half clean, half at one level, half hidden
Table:     after-paper
Source:    arXiv 2406.17688
Run:       tools/dist_train.sh configs/after_paper/tokens_clean.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './tokens_two.py'

model = dict(noiser=dict(share=0.5, rest=0), masking=dict(type='ldae.RandomMasking', ratio=0.5, fill='mask'))
