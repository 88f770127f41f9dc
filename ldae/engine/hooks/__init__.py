# SPDX-License-Identifier: Apache-2.0
from .check_loaded import CheckLoadedHook
from .fit_tokenizer import FitTokenizerHook
from .plain_checkpoint import PlainCheckpointHook
from .run_summary import RunSummaryHook

__all__ = ['CheckLoadedHook', 'FitTokenizerHook', 'PlainCheckpointHook', 'RunSummaryHook']
