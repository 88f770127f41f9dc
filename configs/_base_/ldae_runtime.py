# SPDX-License-Identifier: Apache-2.0
"""Runtime of l-DAE: a tokenizer that needs fitting is fitted on the training set before the first step; signs of health."""

_base_ = './default_runtime.py'

# The paper says "a large random sample of patches". Ours: 50 000 images of 256 patches each, 12.8 M.
default_hooks = dict(
    fit_tokenizer=dict(type='ldae.FitTokenizerHook', num_images=50_000),
    health=dict(type='ldae.HealthHook', interval=500),
)

# One seed on all ranks: the noise of an image follows from its place in the global batch, so that a run does not depend on
# the number of processes.
randomness = dict(diff_rank_seed=False)
