# SPDX-License-Identifier: Apache-2.0
"""Weights of min-SNR: the error of the clean latent counts by SNR, up to 5.

Row:       predict clean, weight min(SNR, 5)
Table:     after-paper
Source:    arXiv 2303.09556
Run:       tools/dist_train.sh configs/after_paper/min-snr.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './grid_clean_clean.py'

model = dict(head=dict(min_snr=5.0))
