# SPDX-License-Identifier: Apache-2.0
"""Processes, batch, learning rate and memory."""

import math
import os
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from torch import nn

from ldae import compat
from ldae.config.methods import FACTS, method_of
from ldae.utils import ConfigError

#: Of a contrastive method's batch, the part that is called small.
SMALL = 4
WORLD_SIZE_VARIABLE = dict(pytorch='WORLD_SIZE', slurm='SLURM_NTASKS', mpi='OMPI_COMM_WORLD_SIZE')


def world_size(launcher: str) -> int:
    """How many processes a launcher has started."""
    variable = WORLD_SIZE_VARIABLE.get(launcher)
    if variable is None:
        return 1
    if variable not in os.environ:
        raise ConfigError(f'--launcher {launcher} needs {variable}: start with tools/dist_train.sh or slurm_train.sh')
    return int(os.environ[variable])


def rank(launcher: str) -> int:
    """The number of this process among those that a launcher has started."""
    variable = compat.RANK_VARIABLES.get(launcher, ('RANK',))[0]
    return 0 if launcher == 'none' else int(os.environ.get(variable, '0'))


def scale_batch(cfg: Config, auto_scale_lr: bool = False, keep_batch: bool = False) -> None:
    """Fit lr, or the number of accumulated batches, to the batch that ``auto_scale_lr.base_batch_size`` asks for.

    The effective batch is ``processes x batch_size x accumulative_counts``. What was done is put into
    ``cfg.batch_arithmetic``, which :func:`build_runner` logs. mmengine's own scaling is switched off: it leaves
    accumulation out."""
    if cfg.get('optim_wrapper') is None or cfg.get('train_dataloader') is None:
        return
    loader, world = cfg.train_dataloader, world_size(cfg.launcher)
    per_process = loader.get('batch_size') or (loader.get('batch_sampler') or {}).get('batch_size') or 1
    scaling = cfg.get('auto_scale_lr') or ConfigDict()
    base = scaling.get('base_batch_size')
    if base is None and (auto_scale_lr or keep_batch):
        flag = '--keep-batch' if keep_batch else '--auto-scale-lr'
        raise ConfigError(f'{flag} needs auto_scale_lr=dict(base_batch_size=...) in the config')
    if keep_batch:
        cfg.optim_wrapper.accumulative_counts = accumulation_for(base, world, per_process)
    count = cfg.optim_wrapper.get('accumulative_counts', 1)
    batch = world * per_process * count
    scale = base is not None and base != batch and (auto_scale_lr or scaling.get('enable', False))
    cfg.batch_arithmetic = f'batch {world} x {per_process} x {count} = {batch}'
    _note_small_batch(cfg, world * per_process)
    if base is not None:
        cfg.batch_arithmetic += f' of {base}: ' + _scale_lr(cfg.optim_wrapper.optimizer, batch / base, scale)
        # From here on the config's lr is that of `batch`: also when the dumped config is used again.
        cfg.auto_scale_lr = ConfigDict(base_batch_size=batch if scale else base, enable=False)


def whole_batch(cfg: Config) -> Config:
    """Let one process accumulate the batch that ``auto_scale_lr.base_batch_size`` says a config's schedule is for."""
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    if base is not None:
        per_process = cfg.train_dataloader.batch_size = math.gcd(base, cfg.train_dataloader.batch_size)
        cfg.optim_wrapper.accumulative_counts = base // per_process
    return cfg


def share_batch(cfg: Config, processes: int) -> None:
    """Share the batch of a config for one process out to several: first what it accumulates, then its images. Raises
    ConfigError if they don't divide it."""
    if processes == 1:
        return
    batch, count = cfg.train_dataloader.batch_size, cfg.optim_wrapper.get('accumulative_counts', 1)
    if batch * count % processes:
        raise ConfigError(
            f'--processes-per-job {processes} does not divide the batch of {batch * count} images: take another number'
        )
    share = batch * count // processes
    cfg.train_dataloader.batch_size = math.gcd(batch, share)
    fewer = share // cfg.train_dataloader.batch_size
    if fewer != count and (cfg.get('train_cfg') or {}).get('max_iters'):
        raise ConfigError(
            f'--processes-per-job {processes} shares out the {count} batches that a step accumulates, which max_iters counts one by one: '
            'give the length in epochs, or leave it out'
        )
    cfg.optim_wrapper.accumulative_counts = fewer


def _note_small_batch(cfg: Config, batch: int) -> None:
    """Say that a method that contrasts the images of a batch has few of them; those that are accumulated don't count."""
    facts = FACTS.get(method_of(cfg))
    cfg.pop('small_batch', None)
    if facts and facts.batch and batch <= facts.batch // SMALL:
        cfg.small_batch = (
            f'{facts.title} tells each image from the others of its batch: {batch} here, {facts.batch} in its recipe. '
            'With so few it may learn less'
        )


def accumulation_for(base: int, world: int, per_process: int) -> int:
    """How many batches to accumulate so that the effective batch is ``base``."""
    if base % (world * per_process):
        raise ConfigError(
            f'--keep-batch: {base} is not a multiple of {world} processes x {per_process} images;'
            ' change train_dataloader.batch_size'
        )
    return base // (world * per_process)


def _scale_lr(optimizer: ConfigDict, ratio: float, scale: bool) -> str:
    old = optimizer.lr
    if scale:
        optimizer.lr = old * ratio
        return f'lr {old:.3g} -> {optimizer.lr:.3g}'
    return f'lr {old:.3g}' + ('' if ratio == 1 else ' unchanged (--auto-scale-lr scales it, --keep-batch accumulates)')


def check_size(images: int, steps: int, world: int, batch_size: int | None) -> None:
    """Raise ConfigError if there are more processes than images, or an epoch without a step."""
    if images < world:
        raise ConfigError(f'{images} training images for {world} processes: start fewer processes')
    if steps == 0:
        raise ConfigError(
            f'{images} training images give no batch of {world} x {batch_size}: lower train_dataloader.batch_size'
        )


#: Bytes of a trained parameter in float32: itself, its gradient and Adam's two moments.
PARAMETER = 16
#: Values that a block keeps for the backward pass, in widths of a token: inputs and outputs of two norms, queries, keys, values,
#: attention and its projection, and the hidden layer before and after its activation, four times as wide.
KEPT = 16
CGROUP = Path('/sys/fs/cgroup/memory.max')


def memory(device: str) -> int:
    """Bytes that this device has, or that its container may have."""
    if device == 'cuda':
        return torch.cuda.mem_get_info()[1]
    limit = CGROUP.read_text().strip() if CGROUP.is_file() else ''
    total = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return min(total, int(limit)) if limit.isdigit() else total


def needed(model: nn.Module, half: bool = False) -> tuple[int, int]:
    """Bytes that training a model with an encoder takes at least, without images and for each of them; with
    ``half``, what is kept for the backward pass is in half precision."""
    fixed = sum(p.numel() * (PARAMETER if p.requires_grad else 4) for p in model.parameters())
    tokens = math.prod(model.backbone.patch_resolution)
    visible = getattr(getattr(model, 'masking', None), 'num_visible', tokens) / tokens
    visible *= 1 - (getattr(model.backbone, 'mask_ratio', None) or 0)  # of MAE
    views = next((facts.views for facts in FACTS.values() if facts.model == type(model).__name__), 1)
    kept = 0.0
    for name, block in model.named_modules():
        if isinstance(block, TransformerEncoderLayer) and any(p.requires_grad for p in block.parameters()):
            kept += views * block.embed_dims * (visible if name.startswith('backbone.') else 1)
    return fixed, int(tokens * kept * KEPT * (2 if half else 4))


def check_memory(model: nn.Module, batch: int, device: str, half: bool = False) -> None:
    """Raise ConfigError, with a batch that would fit, if training takes more memory than there is."""
    if not hasattr(getattr(model, 'backbone', None), 'patch_resolution'):
        return
    (fixed, image), have = needed(model, half), memory(device)
    if fixed + batch * image <= have:
        return
    fits = (have - fixed) // max(1, image)
    advice = f'--batch-size {2 ** (fits.bit_length() - 1)}' if fits > 0 else '--model small, or --scale auto'
    raise ConfigError(
        f'{sum(p.numel() for p in model.parameters()) / 1e6:.0f} million parameters and batches of {batch} images take '
        f'{(fixed + batch * image) / 1e9:.1f} GB or more to train, and this {device} has {have / 1e9:.1f} GB: add {advice}'
    )
