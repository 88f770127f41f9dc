# SPDX-License-Identifier: Apache-2.0
"""Runtime of linear probes: an epoch has 78 steps, so a line in the log every 10."""

_base_ = './default_runtime.py'

default_hooks = dict(logger=dict(interval=10))
