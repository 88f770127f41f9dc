# SPDX-License-Identifier: Apache-2.0
"""Settings that make a run faster: those that change no result, for all runs, and those of ``--fast``."""

import copy
import inspect

from mmengine.config import Config

from ldae.config import find_config
from ldae.registry import DATASETS
from ldae.utils import ConfigError

FRAGMENT = 'ldae::_base_/fast.py'
# Optimizers with a fused kernel, and options that exclude it.
FUSED, OTHER_KERNELS = ('Adam', 'AdamW'), ('fused', 'foreach', 'capturable', 'differentiable')


def fuse_optimizer(cfg: Config) -> None:
    """Let Adam and AdamW do their update in one kernel, unless the config chooses another: the same to rounding."""
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
    if optimizer.get('type') in FUSED and not any(key in optimizer for key in OTHER_KERNELS):
        optimizer.fused = True


def use_fast_settings(cfg: Config) -> None:
    """Merge ``configs/_base_/fast.py``: compiled blocks, bfloat16 autocast, TF32 and cuDNN's search for algorithms; and
    let the training data set resize by torch, unless the config says whether it does. Raises ConfigError if the config
    trains nothing."""
    if not cfg.get('optim_wrapper') or not cfg.get('train_cfg'):
        raise ConfigError(f'--fast is for training, and {cfg.filename or "this config"} has no optim_wrapper')
    if cfg.get('default_hooks') is None:
        cfg.default_hooks = {}
    cfg.merge_from_dict(copy.deepcopy(Config.fromfile(find_config(FRAGMENT)).to_dict()))
    cfg.optim_wrapper.pop('loss_scale', None)
    dataset = (cfg.get('train_dataloader') or {}).get('dataset') or {}
    kind = DATASETS.get(dataset.get('type', '')) if isinstance(dataset.get('type', ''), str) else dataset.type
    if kind is not None and 'fast_resize' in inspect.signature(kind).parameters:
        dataset.setdefault('fast_resize', True)
