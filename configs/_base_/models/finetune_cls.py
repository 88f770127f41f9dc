# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning as finetune_mae.py, on the class token after the last norm: encoders that were pre-trained by theirs."""

_base_ = './finetune_mae.py'

model = dict(backbone=dict(out_type='cls_token', final_norm=True))
