# SPDX-License-Identifier: Apache-2.0
"""Hashes by which two runs are the same: of all that can change their outcome, and of nothing else."""

import hashlib
import json

from mmengine.config import Config

TRAINING_KEYS = (
    'model', 'data_preprocessor', 'train_dataloader', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'auto_scale_lr',
    'custom_hooks', 'randomness', 'load_from',
)  # fmt: skip
# How data are fetched and when a run is looked at; and the seed, which stands beside the hash.
IRRELEVANT = ('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor', 'val_interval', 'val_begin', 'seed')


def fingerprint(*parts: object) -> str:
    """12 hex digits of nested plain data; the order of keys has no influence."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def training_part(cfg: Config) -> dict:
    """The part of a config that decides which weights come out of training."""
    part = {key: cfg.get(key) for key in TRAINING_KEYS}
    part['fit_tokenizer'] = cfg.get('default_hooks', {}).get('fit_tokenizer')
    return relevant(part)


def relevant(node: object) -> object:
    """Nested plain data without the keys that change nothing."""
    if isinstance(node, dict):
        return {key: relevant(value) for key, value in node.items() if key not in IRRELEVANT}
    if isinstance(node, list | tuple):
        return [relevant(item) for item in node]
    return node


def pop_transfer(cfg: Config) -> dict:
    """Take out of a config what features depend on and pre-training doesn't: the time step, candidates for it where the
    row names none, and whether images are noised."""
    timestep = cfg.model.get('backbone', {}).pop('timestep', None)
    candidates = cfg.pop('timesteps', None) or [timestep]
    return dict(timestep=timestep, timesteps=list(candidates), transfer_noise=cfg.model.pop('transfer_noise', False))
