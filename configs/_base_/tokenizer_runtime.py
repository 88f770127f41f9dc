# SPDX-License-Identifier: Apache-2.0
"""Runtime of a tokenizer's training: pictures of reconstructions, and at the end tokenizer.pth."""

_base_ = './default_runtime.py'

default_hooks = dict(
    write_tokenizer=dict(type='ldae.WriteTokenizerHook', num_images=50_000),
    pictures=dict(type='ldae.ReconstructionPicturesHook', interval=1),
)
