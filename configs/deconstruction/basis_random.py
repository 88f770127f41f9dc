# SPDX-License-Identifier: Apache-2.0
"""l-DAE on a random orthonormal basis instead of PCA.

Not in the paper: does it have to be PCA?

Row:       random basis, d = 32
Table:     basis
Paper:     none
Run:       tools/dist_train.sh configs/deconstruction/basis_random.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './basis_dct.py'

model = dict(tokenizer=dict(type='ldae.RandomProjectionTokenizer', seed=0))
