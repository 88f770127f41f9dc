# SPDX-License-Identifier: Apache-2.0
from .check_loaded import CheckLoadedHook
from .fit_tokenizer import FitTokenizerHook
from .plain_checkpoint import PlainCheckpointHook

__all__ = ['CheckLoadedHook', 'FitTokenizerHook', 'PlainCheckpointHook']
