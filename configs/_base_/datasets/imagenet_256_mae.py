# SPDX-License-Identifier: Apache-2.0
"""As imagenet_256_rrc.py with MAE's batch, 512 images per process, and no validation: mmpretrain's MAE has no such mode."""

_base_ = './imagenet_256_rrc.py'

train_dataloader = dict(batch_size=512, drop_last=False)
val_dataloader = val_cfg = val_evaluator = None
test_dataloader = test_cfg = test_evaluator = None
