# SPDX-License-Identifier: Apache-2.0
"""l-DAE with a running average of its weights (EMA 0.9999), as DiT keeps one; the average is what gets scored.

Not in the paper: the weights themselves are those of the row before.

Row:       average of the weights
Table:     ema
Paper:     none
Run:       tools/dist_train.sh configs/deconstruction/ema.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
"""

_base_ = './t3_5_original-image.py'

default_hooks = dict(ema=dict(type='ldae.SkipAwareEMAHook', momentum=1e-4, in_place=False))
