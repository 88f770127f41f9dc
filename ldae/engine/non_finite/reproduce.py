# SPDX-License-Identifier: Apache-2.0
"""Repeat a skipped training step, watched from inside."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.config import Config
from torch import Tensor, nn

from ldae.apis.models import get_model
from ldae.utils import ConfigError
from ldae.utils.checkpoints import check_archive, read_checkpoint
from ldae.utils.models import changed
from ldae.utils.rng import preserved_rng

from .step_snapshots import RANK_FILES, STATE_FILE, rebuilt_batch, recent_losses, set_rng_states

AUTOCAST_TYPES = ('AutocastOptimWrapper', 'AmpOptimWrapper')


@dataclass
class Findings:
    """Names of all that is not finite in one batch's step, in the order of the computation."""

    iter: int
    images: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    losses: dict[str, float] = field(default_factory=dict)
    bad_losses: list[str] = field(default_factory=list)
    samples: list[tuple[int, int]] = field(default_factory=list)
    gradients: list[str] = field(default_factory=list)
    num_gradients: int = 0
    #: Whether the time steps are those that were drawn then; None where none were.
    same_timesteps: bool | None = None

    @property
    def reproduced(self) -> bool:
        return bool(self.images or self.modules or self.bad_losses or self.gradients)


def reproduce_folder(
    folder: Path, rank: int | None = None, device: str | None = None
) -> tuple[list[str], Iterator[tuple[dict[str, Any], Findings]]]:
    """Repeat what a folder of :class:`ldae.SkipNonFiniteHook` holds, of all processes or of one ``rank``: names of
    weights that aren't finite, and, batch by batch, what its file says with what was found. Random numbers differ
    between devices."""
    files = rank_files(folder)
    if rank is not None:
        files = [path for path in files if path.stem == f'rank_{rank}']
        if not files:
            raise ConfigError(f'--rank {rank}: {folder} holds no batch of that process')
    model, cfg = load_model(folder, device)
    contents = map(read_snapshots, files)
    state = read_checkpoint(folder / STATE_FILE)['state_dict']
    weights = [name for name, value in state.items() if not all_finite(value)]
    return weights, ((c, found) for c in contents for found in reproduce(model, cfg, c))


def rank_files(folder: Path) -> list[Path]:
    """The files of all ranks in a folder that :class:`ldae.SkipNonFiniteHook` wrote. Raises ConfigError if it isn't
    one."""
    files = sorted(folder.glob(RANK_FILES.format('*')))
    if not files or not (folder / STATE_FILE).is_file():
        raise ConfigError(
            f'{folder} holds no skipped step: name a folder such as WORK_DIR/non_finite/iter_100, with {STATE_FILE} and '
            f'{RANK_FILES.format("0")}'
        )
    return files


def read_snapshots(path: Path) -> dict[str, Any]:
    """One rank's batches as ``save_snapshots`` wrote them; nothing of the file is run."""
    check_archive(path)
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(f'{path} cannot be read: {reason}') from error
    if not isinstance(content, dict) or 'attempts' not in content:
        raise ConfigError(f'{path} holds no batch: name a folder that training wrote when it skipped a step')
    return content


def load_model(folder: Path, device: str | None) -> tuple[nn.Module, Config]:
    """The model in training mode with the weights of that step, and its config."""
    model = get_model(checkpoint=folder / STATE_FILE, device=device)
    return model.train(), model._config


def reproduce(model: nn.Module, cfg: Config, content: dict[str, Any]) -> list[Findings]:
    """Forward and backward of one rank's batches, one after the other, with the random numbers of then."""
    model.zero_grad()
    with preserved_rng(), as_rank(content['rank'], content['world_size']):
        return [repeat_step(model, cfg, snapshot) for snapshot in content['attempts']]


def repeat_step(model: nn.Module, cfg: Config, snapshot: dict[str, Any]) -> Findings:
    """Forward and backward of one batch, whose gradients are added to those of the model."""
    found = Findings(snapshot['iter'])
    set_rng_states(snapshot['rng'])
    device = next(model.parameters()).device
    with precision(cfg, device), watched(model, found.modules):
        data = model.data_preprocessor(rebuilt_batch(snapshot['batch']), training=True)
        found.images = [name_of(i, data.get('data_samples')) for i in bad_rows(data['inputs'])]
        losses = model(**data, mode='loss')
    total, log = model.parse_losses(losses)
    found.losses = {key: float(value.detach()) for key, value in log.items()}
    found.bad_losses = [key for key, value in log.items() if not all_finite(value)]
    if (recent := recent_losses(model)) is not None:
        t, sample_losses = (part.cpu() for part in recent)
        found.samples = [(i, int(t[i].max())) for i in bad_rows(sample_losses)]
        found.same_timesteps = snapshot['t'] is None or torch.equal(t, snapshot['t'])
    total.backward()
    gradients = {name: param.grad for name, param in model.named_parameters() if param.grad is not None}
    found.num_gradients = len(gradients)
    found.gradients = [name for name, value in gradients.items() if not all_finite(value)]
    return found


@contextmanager
def watched(model: nn.Module, names: list[str]) -> Iterator[None]:
    """Collect names of modules, innermost first, whose output isn't finite, in the order of their calls."""

    def look(name: str, module: nn.Module, args: tuple, output: Any) -> None:
        if name and not all_finite(output):
            names.append(f'{name} ({type(module).__name__})')

    with ExitStack() as handles:
        for name, module in model.named_modules():
            handles.enter_context(module.register_forward_hook(partial(look, name)))
        yield


def all_finite(value: Any) -> bool:
    """Whether all numbers in a nest of tensors are finite."""
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(torch.isfinite(value).all())
    if isinstance(value, dict):
        value = list(value.values())
    return all(map(all_finite, value)) if isinstance(value, list | tuple) else True


def bad_rows(value: Any) -> list[int]:
    """Which samples of a batch, or of several views of it, aren't finite."""
    views = value if isinstance(value, list | tuple) else [value]
    rows = [~torch.isfinite(view.float()).flatten(1 if view.dim() > 1 else 0) for view in views]
    return sorted({i for view in rows for i in view.view(len(view), -1).any(1).nonzero().flatten().tolist()})


def name_of(index: int, samples: list | None) -> str:
    """'17 (path/to/image.jpg)', if the sample says where it is from."""
    path = samples[index].get('img_path') if samples else None
    return f'{index} ({path})' if path else str(index)


def precision(cfg: Config, device: torch.device) -> AbstractContextManager:
    """Autocast where the run had it."""
    wrapper = cfg.get('optim_wrapper') or {}
    if str(wrapper.get('type')).rpartition('.')[2] not in AUTOCAST_TYPES:
        return nullcontext()
    default = 'bfloat16' if str(wrapper['type']).endswith(AUTOCAST_TYPES[0]) else 'float16'
    return torch.autocast(device.type, getattr(torch, wrapper.get('dtype') or default))


def as_rank(rank: int, world_size: int) -> AbstractContextManager:
    """Let what asks for its rank, as the noiser does, believe that it is one of several processes; nothing communicates."""
    return changed(dist, get_rank=lambda *_: rank, get_world_size=lambda *_: world_size)
