# SPDX-License-Identifier: Apache-2.0
"""Runtime of fine-tuning: an average of the weights (EMA 0.9999) that is what gets validated."""

_base_ = './default_runtime.py'

default_hooks = dict(ema=dict(type='ldae.SkipAwareEMAHook', momentum=1e-4))
