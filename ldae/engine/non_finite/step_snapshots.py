# SPDX-License-Identifier: Apache-2.0
"""Snapshots of what a training step was made from, kept until it is known to have gone well, and saved where it hasn't."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ldae.engine.resume.plain_checkpoint import to_plain
from ldae.utils.files import atomic_save
from ldae.utils.models import unwrapped

STATE_FILE, RANK_FILES = 'state.pth', 'rank_{}.pth'


class StepSnapshot:
    """One batch: references to its data, and the states of the random streams before it; the device isn't asked."""

    def __init__(self, iteration: int, batch: Any) -> None:
        self.iter, self.batch = iteration, batch
        self.rng = rng_states()
        #: Of the step, by :func:`recent_losses`.
        self.seen: tuple[Tensor, Tensor] | None = None

    def plain(self) -> dict[str, Any]:
        """Tensors, numbers and strings, for a file."""
        t, losses = (None, None) if self.seen is None else (part.cpu() for part in self.seen)
        return dict(iter=self.iter, batch=plain_batch(self.batch), rng=to_plain(self.rng), t=t, losses=losses)


def recent_losses(model: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Time steps and losses (B,) of an l-DAE's last batch, on the device; None of other models."""
    return getattr(getattr(model, 'head', None), 'recent', None)


def rng_states() -> dict[str, Any]:
    """States of Python's, numpy's and torch's generators: as they are, since this is done in every step."""
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    return dict(torch=torch.get_rng_state(), cuda=cuda, python=random.getstate(), numpy=np.random.get_state())


def set_rng_states(states: dict[str, Any]) -> None:
    """Undo what was drawn since :func:`rng_states`, whose result may have been in a file; a GPU's stream only where there
    is a GPU."""
    torch.set_rng_state(states['torch'])
    if states['cuda'] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states['cuda'])
    random.setstate(tuple(states['python']))
    name, keys, *numbers = states['numpy']
    np.random.set_state((name, np.asarray(keys), *numbers))


def plain_batch(batch: Any) -> Any:
    """A batch with its samples' fields in dicts."""
    if isinstance(batch, DataSample):
        fields = [dict(values) for values in (batch.metainfo_items(), batch.items())]
        return dict(data_sample=to_plain(fields))
    if isinstance(batch, dict):
        return {key: plain_batch(value) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return [plain_batch(value) for value in batch]
    return to_plain(batch)


def rebuilt_batch(batch: Any) -> Any:
    """Undo :func:`plain_batch`."""
    if isinstance(batch, dict) and batch.keys() == {'data_sample'}:
        metainfo, fields = batch['data_sample']
        sample = DataSample(metainfo=metainfo)
        sample.set_data(fields)
        return sample
    if isinstance(batch, dict):
        return {key: rebuilt_batch(value) for key, value in batch.items()}
    return [rebuilt_batch(value) for value in batch] if isinstance(batch, list) else batch


def save_snapshots(folder: Path, snapshots: list[StepSnapshot], seed: int | None) -> None:
    """Write this rank's batches to ``<folder>/rank_<r>.pth``, whole or not at all."""
    plain = [snapshot.plain() for snapshot in snapshots]
    content = dict(attempts=plain, rank=get_rank(), world_size=get_world_size(), seed=seed)
    atomic_save(content, folder / RANK_FILES.format(get_rank()))


def save_state(folder: Path, runner: Runner) -> None:
    """Write weights and config to ``<folder>/state.pth``: a checkpoint like any other, without the optimizer's part."""
    meta = dict(cfg=runner.cfg.pretty_text, iter=runner.iter, epoch=runner.epoch, seed=runner.seed)
    atomic_save(dict(meta=meta, state_dict=unwrapped(runner.model).state_dict()), folder / STATE_FILE)
