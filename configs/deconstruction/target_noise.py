# SPDX-License-Identifier: Apache-2.0
"""Back to predicting the noise at the end of the road, from the noisy image.

The noise is that in the latent space: d values per token. The paper mentions this row in a footnote.

Row:       predict noise, from l-DAE
Table:     target
Paper:     none
Run:       tools/dist_train.sh configs/deconstruction/target_noise.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t3_5_original-image.py'

model = dict(head=dict(_delete_=True, type='ldae.NoiseHead'))
