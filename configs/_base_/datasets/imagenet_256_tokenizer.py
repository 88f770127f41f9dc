# SPDX-License-Identifier: Apache-2.0
"""imagenet_256_center.py for the training of a tokenizer: validation measures reconstructions."""

_base_ = './imagenet_256_center.py'

val_evaluator = dict(type='ldae.ReconstructionMetric')
test_evaluator = val_evaluator
