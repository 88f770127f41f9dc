# SPDX-License-Identifier: Apache-2.0
"""Runtime of methods that compare views of an image, as in mmpretrain: one seed on all ranks; signs of health."""

_base_ = './default_runtime.py'

default_hooks = dict(health=dict(type='ldae.HealthHook', interval=500))

randomness = dict(_delete_=True, seed=0)
