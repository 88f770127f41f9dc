# SPDX-License-Identifier: Apache-2.0
"""Settings that `tools/train.py --fast` merges into a config: speed at the price of the last digits.

It sets `fast_resize` of the training data besides, where the data set has it.

Bases of one config may not set the same names, so that this can't stand beside another in `_base_`: a config that is to be
fast by itself repeats these lines.
"""

default_hooks = dict(
    compile_blocks=dict(type='ldae.CompileBlocksHook'),
    # Autocast leaves little in float32; what does stay there and is learned may use TF32.
    matmul_precision=dict(type='ldae.MatmulPrecisionHook', precision='high'),
)
optim_wrapper = dict(type='ldae.AutocastOptimWrapper')
env_cfg = dict(cudnn_benchmark=True)
