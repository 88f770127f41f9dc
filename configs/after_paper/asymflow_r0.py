# SPDX-License-Identifier: Apache-2.0
"""AsymFlow's end without a subspace: clean prediction of all components of a patch.

Row:       all components, r = 0: predict clean, loss of velocity
Table:     after-paper
Source:    arXiv 2605.12964
Run:       tools/dist_train.sh configs/after_paper/asymflow_r0.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './grid_velocity_velocity.py'

model = dict(tokenizer=dict(latent_dim=768), head=dict(rank=0))
