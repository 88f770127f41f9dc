# SPDX-License-Identifier: Apache-2.0
"""Appendix A: features are taken after block 13 of the 24, of one pre-trained model.

Pre-training is that of t3_5, as the paper's text says ("the same pre-trained model"); a_cut13 trains its own.

Row:       features after block 13 of 24
Table:     one-cut
Paper:     linear 63.6
Run:       tools/dist_train.sh configs/deconstruction/one_cut13.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t3_5_original-image.py'

blocks = [13]
