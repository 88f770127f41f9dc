# SPDX-License-Identifier: Apache-2.0
"""Runtime of MAE, as in mmpretrain: continue from the last checkpoint of the work dir, if there is one."""

_base_ = './default_runtime.py'

resume = True
