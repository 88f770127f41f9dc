# SPDX-License-Identifier: Apache-2.0
"""l-DAE on a fixed basis: the lowest frequencies of each patch's DCT instead of PCA.

Not in the paper: does it have to be PCA?

Row:       DCT basis, d = 32
Table:     basis
Paper:     none
Run:       tools/dist_train.sh configs/deconstruction/basis_dct.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t3_5_original-image.py'

model = dict(tokenizer=dict(type='ldae.DCTTokenizer'))
