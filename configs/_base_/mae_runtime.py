# SPDX-License-Identifier: Apache-2.0
"""Runtime of MAE, as in mmpretrain: continue from the last checkpoint of the work dir, if there is one; signs of health."""

_base_ = './default_runtime.py'

default_hooks = dict(health=dict(type='ldae.HealthHook', interval=500))

resume = True
