# SPDX-License-Identifier: Apache-2.0
"""Tokenizers that are fitted or trained, and the latents that they give, cached."""

from .fit_tokenizer import FitTokenizerHook
from .latent_cache_hook import LatentCacheHook
from .optim_constructors import AdversarialOptimWrapperConstructor
from .write_tokenizer import WriteTokenizerHook
